//! Files that are either there in full or not there at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Puts `bytes` at `path`: written under another name in the same directory, synced to
/// the disk, then renamed over `path`. Whoever lists the directory sees the old file or
/// the new one, never a part. On failure nothing new is left behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = AtomicFile::create(path)?;
    file.handle()?.write_all(bytes)?;
    file.commit()
}

/// A file that appears under its name when it is committed, and not at all when it is
/// dropped before.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    pub fn create(path: &Path) -> io::Result<Self> {
        let partial = partial_path(path)?;
        Ok(Self { file: File::create(&partial)?, partial, path: path.into() })
    }

    /// To write with; all handles share one position.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Syncs the file to the disk and renames it over whatever bears its name.
    pub fn commit(self) -> io::Result<()> {
        // Without this a power cut may leave the new name with no content.
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // Once it is committed there is nothing under this name; and of several errors the
        // first, which is told already, is the one worth telling.
        let _ = fs::remove_file(&self.partial);
    }
}

/// The name under which an [`AtomicFile`] is written: `.NAME.PID.part`, hidden and with
/// an ending that no pattern for finished files matches.
fn partial_path(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name in UTF-8"))?;
    Ok(path.with_file_name(format!(".{name}.{}.part", std::process::id())))
}

/// The final name that the partial file `name` was meant for, or `None` if this is not
/// a name that an [`AtomicFile`] has.
pub(super) fn meant_for(name: &str) -> Option<&str> {
    let (name, pid) = name.strip_prefix('.')?.strip_suffix(".part")?.rsplit_once('.')?;
    (!name.is_empty() && pid.parse::<u32>().is_ok()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_a_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.npy");
        for content in [&b"first"[..], b"second, longer", b""] {
            write_atomically(&path, content).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(names(dir.path()), ["map.npy"]);
        }
    }

    #[test]
    fn a_failed_rename_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        write_atomically(&path, b"x").unwrap_err();
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn knows_its_own_partial_names() {
        let partial = partial_path(Path::new("/d/a.b.npy")).unwrap();
        let partial = partial.file_name().unwrap().to_str().unwrap();
        assert_eq!(meant_for(partial), Some("a.b.npy"));
        for other in ["a.npy", ".a.npy.part", ".a.x1.part", "a.1.part", ".a.1.tmp", "..1.part"] {
            assert_eq!(meant_for(other), None, "{other}");
        }
    }
}
