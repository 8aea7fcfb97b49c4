//! What is where in photos: Pascal VOC's XML, one file a photo, or one JSON file for all.

use super::boxes::Bounds;
use super::{EvalError, images};
use roxmltree::{Document, Node};
use serde::Deserialize;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Far more than any list of boxes takes.
const MOST_BYTES: u64 = 64 << 20;

/// A photo with the things in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Photo {
    pub image: PathBuf,
    /// The file that says what is in it.
    pub annotation: PathBuf,
    /// `[width, height]` in pixels, where the annotation says it.
    pub size: Option<[u32; 2]>,
    /// At least one.
    pub objects: Vec<Object>,
}

/// A thing in a photo.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub name: String,
    /// In pixels of the photo.
    pub bounds: Bounds,
}

impl Photo {
    /// Checks the boxes against the photo itself, `[width, height]` in pixels.
    ///
    /// # Errors
    /// The annotation tells of another size, or a box lies outside: it is another photo's.
    pub fn check_size(&self, actual: [u32; 2]) -> Result<(), EvalError> {
        let [width, height] = actual;
        let image = self.image.display();
        if let Some([w, h]) = self.size.filter(|size| *size != actual) {
            let why = format!("is for a photo of {w}x{h}, and {image} is {width}x{height}");
            return Err(EvalError::annotation(&self.annotation, why));
        }
        for Object { name, bounds: b } in &self.objects {
            // Annotators are off by a pixel now and then.
            let within = b.left >= -1.0
                && b.top >= -1.0
                && b.right <= f64::from(width) + 1.0
                && b.bottom <= f64::from(height) + 1.0;
            if !within {
                let Bounds { left, top, right, bottom } = b;
                let why = format!(
                    "the box of \"{name}\", left {left}, top {top}, right {right}, bottom \
                     {bottom}, is not within {image}, {width}x{height}"
                );
                return Err(EvalError::annotation(&self.annotation, why));
            }
        }
        Ok(())
    }
}

/// The first `limit` photos with their objects: those of the folder `images` in name order
/// with one `STEM.xml` each in the folder `annotations`; or those that the file
/// `annotations` (`.json`) names, below `images`, in its order.
///
/// # Errors
/// No photo, a photo without annotation, or an annotation that cannot be read or is broken.
pub fn photos(
    images: &Path,
    annotations: &Path,
    limit: Option<usize>,
) -> Result<Vec<Photo>, EvalError> {
    let mut photos = if annotations.is_dir() {
        let images = images::list(images, limit)?;
        images.into_iter().map(|image| voc(image, annotations)).collect::<Result<Vec<_>, _>>()?
    } else {
        json(images, annotations)?
    };
    photos.truncate(limit.unwrap_or(usize::MAX));
    Ok(photos)
}

fn voc(image: PathBuf, folder: &Path) -> Result<Photo, EvalError> {
    let stem = image.file_stem().unwrap_or(image.as_os_str());
    let mut annotation = folder.join(stem).into_os_string();
    annotation.push(".xml");
    let annotation = PathBuf::from(annotation);
    let text = match read(&annotation) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!("no annotation: {} is not there", annotation.display());
            return Err(EvalError::annotation(&image, why));
        }
        text => text.map_err(|e| EvalError::annotation(&annotation, unreadable(&e)))?,
    };
    let (size, objects) = parse_voc(&text).map_err(|e| EvalError::annotation(&annotation, e))?;
    Ok(Photo { image, annotation, size, objects })
}

/// Pascal VOC counts pixels from 1 and its last row and column belong to the box.
fn parse_voc(text: &str) -> Result<(Option<[u32; 2]>, Vec<Object>), String> {
    let document = Document::parse(text).map_err(|e| format!("not XML: {e}"))?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        let found = root.tag_name().name();
        return Err(format!("begins with <{found}>, Pascal VOC's files with <annotation>"));
    }
    let size = match child(root, "size") {
        Ok(size) => Some([number(size, "width")? as u32, number(size, "height")? as u32]),
        Err(_) => None,
    };
    let objects = root.children().filter(|node| node.has_tag_name("object"));
    let objects = objects.map(parse_object).collect::<Result<Vec<_>, _>>()?;
    if objects.is_empty() {
        return Err("no <object> in it; leave the photo out".into());
    }
    Ok((size, objects))
}

fn parse_object(object: Node<'_, '_>) -> Result<Object, String> {
    let name = child(object, "name")?.text().unwrap_or_default().trim().to_string();
    let bounds = child(object, "bndbox")?;
    let bounds = Bounds {
        left: number(bounds, "xmin")? - 1.0,
        top: number(bounds, "ymin")? - 1.0,
        right: number(bounds, "xmax")?,
        bottom: number(bounds, "ymax")?,
    };
    if bounds.area() == 0.0 {
        return Err(format!("line {}: the box of \"{name}\" is empty", line(object)));
    }
    Ok(Object { name, bounds })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Result<Node<'a, 'i>, String> {
    node.children().find(|child| child.has_tag_name(name)).ok_or_else(|| {
        format!("line {}: <{}> without <{name}>", line(node), node.tag_name().name())
    })
}

fn number(node: Node<'_, '_>, name: &str) -> Result<f64, String> {
    let child = child(node, name)?;
    let text = child.text().unwrap_or_default().trim();
    let number = text.parse().ok().filter(|n: &f64| n.is_finite());
    number.ok_or_else(|| format!("line {}: <{name}> is \"{text}\", not a number", line(child)))
}

fn line(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

#[derive(Deserialize)]
struct JsonFile {
    photos: Vec<JsonPhoto>,
}

#[derive(Deserialize)]
struct JsonPhoto {
    /// Below the folder of photos.
    file: PathBuf,
    /// What all the boxes show.
    label: String,
    /// `[left, top, right, bottom]` in pixels, counted from 0; right and bottom lie outside.
    boxes: Vec<[f64; 4]>,
}

fn json(images: &Path, path: &Path) -> Result<Vec<Photo>, EvalError> {
    let failed = |why: String| EvalError::annotation(path, why);
    let text = read(path).map_err(|e| failed(unreadable(&e)))?;
    let file: JsonFile = serde_json::from_str(&text).map_err(|e| {
        failed(format!(
            "neither a folder of Pascal VOC's .xml nor JSON as in models/boxes.json: {e}"
        ))
    })?;
    if file.photos.is_empty() {
        return Err(failed("no photo in it".into()));
    }
    let photo = |JsonPhoto { file, label, boxes }: JsonPhoto| {
        let object = |[left, top, right, bottom]: [f64; 4]| {
            let bounds = Bounds { left, top, right, bottom };
            Object { name: label.clone(), bounds }
        };
        let objects: Vec<_> = boxes.into_iter().map(object).collect();
        if objects.is_empty() || objects.iter().any(|object| object.bounds.area() == 0.0) {
            return Err(failed(format!("{}: no box, or an empty one", file.display())));
        }
        Ok(Photo { image: images.join(&file), annotation: path.into(), size: None, objects })
    };
    file.photos.into_iter().map(photo).collect()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn unreadable(error: &std::io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "<annotation>
  <size><width>100</width><height>80</height><depth>3</depth></size>
  <object><name> cat </name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>11</ymin><xmax>50</xmax><ymax>80</ymax></bndbox>
    <part><name>head</name>
      <bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>
  </object>
</annotation>";

    fn bounds([left, top, right, bottom]: [f64; 4]) -> Bounds {
        Bounds { left, top, right, bottom }
    }

    #[test]
    fn a_voc_file() {
        let cat = Object { name: "cat".into(), bounds: bounds([0.0, 10.0, 50.0, 80.0]) };
        assert_eq!(parse_voc(GOOD), Ok((Some([100, 80]), vec![cat])));
    }

    #[test]
    fn what_is_wrong_with_a_voc_file() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(parse_voc(&GOOD.replacen(from, to, 1)), Err(expected.into()));
        };
        check("</size>", "</sise>", "not XML: expected 'size' tag, not 'sise' at 2:61");
        check(GOOD, "<html></html>", "begins with <html>, Pascal VOC's files with <annotation>");
        check(GOOD, "<annotation/>", "no <object> in it; leave the photo out");
        check(GOOD, "", "not XML: the document does not have a root node");
        check("<xmin>1<", "<xmin>one<", "line 4: <xmin> is \"one\", not a number");
        check("<xmin>1<", "<xmin><", "line 4: <xmin> is \"\", not a number");
        check("<xmin>1<", "<xmin>inf<", "line 4: <xmin> is \"inf\", not a number");
        check("ymax>80</ymax", "y>80</y", "line 4: <bndbox> without <ymax>");
        check("<name> cat </name>", "", "line 3: <object> without <name>");
        check("<xmax>50<", "<xmax>0<", "line 3: the box of \"cat\" is empty");
    }

    #[test]
    fn boxes_are_of_that_photo() {
        let photo = |size, right| Photo {
            image: "a.jpg".into(),
            annotation: "a.xml".into(),
            size,
            objects: vec![Object { name: "cat".into(), bounds: bounds([5.0, 0.0, right, 80.0]) }],
        };
        let check = |photo: Photo, expected: &str| {
            let said = photo.check_size([100, 80]).map_err(|e| e.to_string());
            assert_eq!(said.err().unwrap_or_default(), expected);
        };
        check(photo(Some([100, 80]), 100.0), "");
        check(photo(None, 101.0), "");
        check(
            photo(Some([80, 100]), 100.0),
            "a.xml: is for a photo of 80x100, and a.jpg is 100x80",
        );
        check(
            photo(None, 102.0),
            "a.xml: the box of \"cat\", left 5, top 0, right 102, bottom 80, is not within a.jpg, \
             100x80",
        );
    }

    #[test]
    fn photos_of_a_folder_and_of_a_json_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let check = |annotations: &Path, expected: &str| {
            let said = photos(dir.path(), annotations, Some(2)).map_err(|e| e.to_string());
            assert_eq!(said.err().unwrap_or_default(), expected);
        };
        let shown = |path: &Path| path.display().to_string();
        let [a, b] = ["a.jpg", "b.v1.jpg"].map(|name| write(name, ""));
        write("c.jpg", "");
        write("a.xml", GOOD);
        let missing = shown(&dir.path().join("b.v1.xml"));
        check(dir.path(), &format!("{}: no annotation: {missing} is not there", shown(&b)));
        let broken = write("b.v1.xml", "<annotation>");
        let why = "not XML: the root node was opened but never closed";
        check(dir.path(), &format!("{}: {why}", shown(&broken)));
        write("b.v1.xml", GOOD);
        let found = photos(dir.path(), dir.path(), Some(2)).unwrap();
        assert_eq!(found.iter().map(|p| &p.image).collect::<Vec<_>>(), [&a, &b]);

        let text = r#"{"rule": "r", "photos": [{"file": "x/y.jpg", "label": "cat",
            "boxes": [[1, 2, 3, 4], [5, 6, 7.5, 8]]}]}"#;
        let good = write("good.json", text);
        let found = photos(dir.path(), &good, None).unwrap();
        assert_eq!(found[0].image, dir.path().join("x/y.jpg"));
        assert_eq!(found[0].objects[1].bounds, bounds([5.0, 6.0, 7.5, 8.0]));
        let empty = write("empty.json", r#"{"photos": []}"#);
        check(&empty, &format!("{}: no photo in it", shown(&empty)));
        let flat = write("flat.json", &text.replace("7.5", "5"));
        check(&flat, &format!("{}: x/y.jpg: no box, or an empty one", shown(&flat)));
        let other = write("other.json", "{}");
        check(
            &other,
            &format!(
                "{}: neither a folder of Pascal VOC's .xml nor JSON as in models/boxes.json: \
                 missing field `photos` at line 1 column 2",
                shown(&other)
            ),
        );
        let none = dir.path().join("none");
        check(
            &none,
            &format!("{}: cannot be read: No such file or directory (os error 2)", shown(&none)),
        );
    }
}
