//! The photos that something is measured on.

use super::EvalError;
use crate::camera::files::images_in;
use std::path::{Path, PathBuf};

/// The images of a folder in name order, the first `limit` of them: at least one. They are
/// read one at a time, with [`crate::camera::image::load_image`].
///
/// # Errors
/// The folder cannot be read, or holds no image.
pub fn list(folder: &Path, limit: Option<usize>) -> Result<Vec<PathBuf>, EvalError> {
    let failed = |why| EvalError::Folder { folder: folder.to_path_buf(), why };
    let mut paths = images_in(folder).map_err(failed)?;
    paths.truncate(limit.unwrap_or(usize::MAX));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_images_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.jpg", "a.PNG", "notes.txt", "c.jpeg"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |limit| -> Vec<String> {
            let paths = list(dir.path(), limit).unwrap();
            paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().into()).collect()
        };
        assert_eq!(names(None), ["a.PNG", "b.jpg", "c.jpeg"]);
        assert_eq!(names(Some(2)), ["a.PNG", "b.jpg"]);
    }

    #[test]
    fn a_folder_without_images_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        std::fs::write(&file, "").unwrap();
        for (folder, why) in [
            (dir.path(), "no .png, .jpg or .jpeg in the folder"),
            (&file, "Not a directory (os error 20)"),
            (&dir.path().join("y"), "No such file or directory (os error 2)"),
        ] {
            let said = list(folder, None).unwrap_err().to_string();
            let wanted = format!("{}: {why}; --images wants a folder of photos", folder.display());
            assert_eq!(said, wanted);
        }
    }
}
