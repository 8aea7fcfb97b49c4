//! Memory that starts on a cache line.

/// Bytes of a cache line, and of the widest register.
const LINE_BYTES: usize = 64;

/// A vector of bytes whose first lies on a 64-byte boundary, so that loads at multiples of
/// 64 straddle no two cache lines.
#[derive(Debug, Default)]
pub struct Aligned<T> {
    bytes: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        const { assert!(size_of::<T>() == 1) };
        let bytes = vec![T::default(); len + LINE_BYTES];
        let start = bytes.as_ptr().align_offset(LINE_BYTES);
        Self { bytes, start, len }
    }

    /// At least `len` values. What was there is forgotten where it must grow.
    pub fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            // The old one goes first: both need not fit.
            *self = Self { bytes: Vec::new(), start: 0, len: 0 };
            *self = Self::zeroed(len);
        }
        self.as_mut_slice()
    }

    pub fn as_slice(&self) -> &[T] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
