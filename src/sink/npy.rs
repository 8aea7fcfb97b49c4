//! NumPy's `.npy` files, format version 1.0: little-endian C-order arrays of `f32` or `u8`.
//!
//! Layout: magic `\x93NUMPY`, version bytes 1 and 0, header length `u16` little-endian,
//! header (a Python dict literal, padded with spaces and ended by `\n` so that the data
//! starts at a multiple of 64), data. Source: NEP 1, `numpy.lib.format`.

use std::fmt::Write as _;

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
const DATA_ALIGN: usize = 64;
const MAX_DIMENSIONS: usize = 32;

/// A number that can stand in a `.npy` file.
pub trait Element: Copy {
    /// As in NumPy's `dtype.str`.
    const DESCR: &'static str;
    const SIZE: usize;
    fn write(self, out: &mut Vec<u8>);
    /// From exactly [`Self::SIZE`] bytes.
    fn read(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    const DESCR: &'static str = "<f4";
    const SIZE: usize = 4;

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Element for u8 {
    const DESCR: &'static str = "|u1";
    const SIZE: usize = 1;

    fn write(self, out: &mut Vec<u8>) {
        out.push(self);
    }

    fn read(bytes: &[u8]) -> Self {
        bytes[0]
    }
}

/// An array in C order, as read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

/// Why bytes are not the `.npy` file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    #[error("not an .npy file: {0}")]
    NotNpy(&'static str),
    #[error(".npy format version {major}.{minor} is not supported, only 1.0")]
    Version { major: u8, minor: u8 },
    #[error(".npy header {header:?}: {problem}")]
    Header { header: String, problem: &'static str },
    #[error(".npy file holds {found} elements, {expected} were expected")]
    Dtype { found: String, expected: &'static str },
    #[error(".npy file has {found} bytes of data, its shape {shape:?} needs {expected}")]
    Length { shape: Vec<usize>, found: usize, expected: usize },
}

/// The bytes of a `.npy` file. `values` are in C order and as many as `shape` says.
///
/// # Panics
/// If `values.len()` is not the product of `shape`.
pub fn to_bytes<T: Element>(shape: &[usize], values: &[T]) -> Vec<u8> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
    let header = header::<T>(shape);
    let mut out = Vec::with_capacity(MAGIC.len() + 2 + header.len() + values.len() * T::SIZE);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    for &value in values {
        value.write(&mut out);
    }
    out
}

fn header<T: Element>(shape: &[usize]) -> String {
    let mut dict = format!("{{'descr': '{}', 'fortran_order': False, 'shape': (", T::DESCR);
    for (axis, length) in shape.iter().enumerate() {
        let space = if axis == 0 { "" } else { " " };
        // A tuple of one needs its comma; NumPy writes none after the last of several.
        let comma = if axis + 1 < shape.len() || shape.len() == 1 { "," } else { "" };
        let _ = write!(dict, "{space}{length}{comma}");
    }
    dict.push_str("), }");
    let unpadded = MAGIC.len() + 2 + dict.len() + 1;
    let padding = unpadded.next_multiple_of(DATA_ALIGN) - unpadded;
    dict.extend(std::iter::repeat_n(' ', padding));
    dict.push('\n');
    dict
}

/// Reads a `.npy` file of exactly this element type; nothing may follow the data.
pub fn from_bytes<T: Element>(bytes: &[u8]) -> Result<Array<T>, NpyError> {
    let (header, data) = split(bytes)?;
    let shape = parse_header::<T>(header)?;
    let expected = shape
        .iter()
        .try_fold(T::SIZE, |size, &length| size.checked_mul(length))
        .ok_or_else(|| bad(header, "the shape is too large"))?;
    if data.len() != expected {
        return Err(NpyError::Length { shape, found: data.len(), expected });
    }
    Ok(Array { shape, values: data.chunks_exact(T::SIZE).map(T::read).collect() })
}

fn split(bytes: &[u8]) -> Result<(&str, &[u8]), NpyError> {
    let rest = bytes.strip_prefix(&MAGIC[..6]).ok_or(NpyError::NotNpy("wrong magic"))?;
    let &[major, minor, low, high, ref rest @ ..] = rest else {
        return Err(NpyError::NotNpy("it ends within the first 10 bytes"));
    };
    if (major, minor) != (1, 0) {
        return Err(NpyError::Version { major, minor });
    }
    let (header, data) = rest
        .split_at_checked(u16::from_le_bytes([low, high]).into())
        .ok_or(NpyError::NotNpy("it ends within its header"))?;
    let header =
        std::str::from_utf8(header).map_err(|_| NpyError::NotNpy("its header is not text"))?;
    Ok((header, data))
}

fn bad(header: &str, problem: &'static str) -> NpyError {
    NpyError::Header { header: header.trim_end().into(), problem }
}

fn parse_header<T: Element>(header: &str) -> Result<Vec<usize>, NpyError> {
    let bad = |problem| bad(header, problem);
    let mut rest = header
        .trim()
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .ok_or_else(|| bad("not a dict"))?
        .trim();
    let (mut descr, mut order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| bad("not a dict"))?;
        let value = after.trim_start();
        let end = match value.as_bytes().first() {
            Some(b'(') => value.find(')').ok_or_else(|| bad("unclosed shape"))? + 1,
            _ => value.find(',').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at(end);
        match key.trim() {
            "'descr'" => descr = Some(value.trim().trim_matches('\'')),
            "'fortran_order'" => order = Some(value.trim()),
            "'shape'" => shape = Some(value),
            _ => return Err(bad("unknown key")),
        }
        rest = after.trim_start().strip_prefix(',').unwrap_or(after).trim_start();
    }
    let descr = descr.ok_or_else(|| bad("no 'descr'"))?;
    if descr != T::DESCR {
        return Err(NpyError::Dtype { found: descr.into(), expected: T::DESCR });
    }
    if order != Some("False") {
        return Err(bad("'fortran_order' is not False"));
    }
    parse_shape(shape.ok_or_else(|| bad("no 'shape'"))?).ok_or_else(|| bad("malformed 'shape'"))
}

/// `()`, `(3,)`, `(3, 4)` …
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let shape: Option<Vec<usize>> =
        inner.split(',').map(|length| length.trim().parse().ok()).collect();
    shape.filter(|shape| shape.len() <= MAX_DIMENSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` 2.x writes for `np.array([[0, 1.5, -2]], '<f4')`.
    const NUMPY_1X3: &[u8] = b"\x93NUMPY\x01\x00v\x00\
        {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }\
        \x20                                                         \n\
        \0\0\0\0\0\0\xc0\x3f\0\0\0\xc0";

    #[test]
    fn writes_what_numpy_writes() {
        assert_eq!(to_bytes(&[1, 3], &[0.0f32, 1.5, -2.0]), NUMPY_1X3);
    }

    #[test]
    fn reads_back_every_shape_bit_for_bit() {
        let shapes: [&[usize]; 6] = [&[], &[0], &[1], &[7], &[2, 3], &[3, 5, 2]];
        for shape in shapes {
            let count = shape.iter().product();
            let values: Vec<f32> =
                (0..count).map(|i| f32::from_bits(0x7fc0_0001 + i as u32)).collect();
            let bytes = to_bytes(shape, &values);
            assert_eq!((bytes.len() - count * 4) % DATA_ALIGN, 0, "{shape:?}");
            let array = from_bytes::<f32>(&bytes).unwrap();
            assert_eq!(array.shape, shape);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&array.values), bits(&values), "{shape:?}");
            let small: Vec<u8> = (0..count).map(|i| i as u8).collect();
            assert_eq!(from_bytes::<u8>(&to_bytes(shape, &small)).unwrap().values, small);
        }
    }

    #[test]
    fn refuses_what_it_cannot_read_exactly() {
        let file = |header: &str, data: &[u8]| {
            let length = header.len() as u16;
            [&MAGIC[..], &length.to_le_bytes(), header.as_bytes(), data].concat()
        };
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "not an .npy file: wrong magic"),
            (b"PK\x03\x04....".to_vec(), "not an .npy file: wrong magic"),
            (NUMPY_1X3[..9].to_vec(), "not an .npy file: it ends within the first 10 bytes"),
            (NUMPY_1X3[..40].to_vec(), "not an .npy file: it ends within its header"),
            (
                b"\x93NUMPY\x02\x00\x00\x00".to_vec(),
                ".npy format version 2.0 is not supported, only 1.0",
            ),
            (
                file("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", &[0; 8]),
                ".npy file holds <f8 elements, <f4 were expected",
            ),
            (
                file("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", &[0; 4]),
                ".npy header \"{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }\": 'fortran_order' is not False",
            ),
            (
                file("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", &[0; 4]),
                ".npy header \"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\": malformed 'shape'",
            ),
            (
                file(
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }",
                    &[],
                ),
                ".npy header \"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }\": the shape is too large",
            ),
            (
                file("{'descr': '<f4', 'fortran_order': False}", &[]),
                ".npy header \"{'descr': '<f4', 'fortran_order': False}\": no 'shape'",
            ),
            (file("[]", &[]), ".npy header \"[]\": not a dict"),
            (
                NUMPY_1X3[..NUMPY_1X3.len() - 1].to_vec(),
                ".npy file has 11 bytes of data, its shape [1, 3] needs 12",
            ),
            (
                [NUMPY_1X3, b"x"].concat(),
                ".npy file has 13 bytes of data, its shape [1, 3] needs 12",
            ),
        ];
        for (bytes, message) in cases {
            assert_eq!(from_bytes::<f32>(&bytes).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_of_a_file_makes_it_panic() {
        for cut in 0..NUMPY_1X3.len() {
            assert!(from_bytes::<f32>(&NUMPY_1X3[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..NUMPY_1X3.len() {
            for value in [0, b'(', b')', b',', b'9', 0xff] {
                let mut bytes = NUMPY_1X3.to_vec();
                bytes[at] = value;
                let _ = from_bytes::<f32>(&bytes);
            }
        }
    }
}
