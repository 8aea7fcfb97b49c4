//! Whether a model's files are still those that were read.

use crate::config::ModelConfig;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the configured model and label files looked like. Equal: nobody has written to them
/// or put others in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMarks([Option<Mark>; 2]);

/// Device, inode, bytes, and the times of the last write and of the last change of the
/// inode in s and ns: a file copied with its times still has a new change time.
type Mark = [i64; 7];

impl FileMarks {
    /// Take them before reading the files: what changes meanwhile is seen the next time.
    pub fn of(config: &ModelConfig) -> Self {
        Self([&config.path, &config.labels].map(|path| path.as_deref().and_then(mark)))
    }
}

/// None where there is no such file.
fn mark(path: &Path) -> Option<Mark> {
    let m = std::fs::metadata(path).ok()?;
    let [device, inode, bytes] = [m.dev(), m.ino(), m.size()].map(|n| n as i64);
    Some([device, inode, bytes, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_write_a_replacement_and_a_removal_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config =
            ModelConfig { path: Some(path("m")), labels: Some(path("l")), ..Default::default() };
        let mut marks = vec![FileMarks::of(&config)];
        let mut changed = |what: &str| {
            let now = FileMarks::of(&config);
            assert_eq!(now, FileMarks::of(&config), "{what}: nothing happened in between");
            assert!(!marks.contains(&now), "{what}");
            marks.push(now);
        };
        fs::write(path("m"), "model").unwrap();
        changed("model comes");
        fs::write(path("l"), "a\nb").unwrap();
        changed("labels come");
        fs::write(path("l"), "a\nbc").unwrap();
        changed("labels are longer");
        fs::write(path("other"), "lodel").unwrap();
        fs::rename(path("other"), path("m")).unwrap();
        changed("another model of the same size");
        fs::remove_file(path("m")).unwrap();
        changed("model goes");
    }
}
