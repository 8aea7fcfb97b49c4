//! The directory: which files in it are ours, and room for the next.

use crate::sink::SinkError;
use crate::sink::atomic::{meant_for, write_atomically};
use crate::wall;
use std::collections::VecDeque;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

const ENDINGS: [&str; 8] = [
    "_overlay.png",
    "_overlay.jpg",
    "_heatmap.png",
    "_maps.npy",
    "_mean.png",
    "_means.npy",
    "_heatmaps.jsonl",
    "_clip.avi",
];

/// Files that cannot be removed, after which no more are tried: it is not the files then.
const MAX_STUCK: usize = 16;

/// Our files in a directory, oldest first, within a count and a size.
pub(super) struct Store {
    dir: PathBuf,
    max_files: usize,
    max_bytes: u64,
    /// In the order of their names where an earlier run wrote them, then in the order in
    /// which they were written: a clock that is set back does not make new files old.
    kept: VecDeque<Kept>,
    bytes: u64,
}

struct Kept {
    name: String,
    bytes: u64,
    /// Begins with the time of the newest that is in it: the name, but for lines.
    newest: String,
    /// That it cannot be removed was told.
    is_stuck: bool,
}

impl Kept {
    fn new(name: &str, bytes: u64, newest: &str) -> Self {
        Self { name: name.into(), bytes, newest: newest.into(), is_stuck: false }
    }
}

impl Store {
    pub fn open(dir: &Path, max_files: usize, max_bytes: u64) -> Result<Self, SinkError> {
        let cannot = |does: &str, source: io::Error| {
            let instead = match source.kind() {
                // As ProtectSystem=strict of the service has it.
                io::ErrorKind::ReadOnlyFilesystem => {
                    "below /var/lib/salientd, if this is the service"
                }
                _ => "that this user may write in",
            };
            SinkError::Open(format!(
                "sink.files: {}: cannot {does}: {source}; set sink.files.dir to a directory \
                 {instead}",
                dir.display()
            ))
        };
        fs::create_dir_all(dir).map_err(|error| cannot("create the directory", error))?;
        let entries = fs::read_dir(dir).map_err(|error| cannot("list the directory", error))?;
        let mut kept: Vec<Kept> = entries.flatten().filter_map(|entry| adopt(&entry)).collect();
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        let bytes = kept.iter().map(|file| file.bytes).sum();
        let mut store = Self { dir: dir.into(), max_files, max_bytes, kept: kept.into(), bytes };
        store.make_room(0, 0, None)?;
        let probe = store.path("probe");
        let probed = write_atomically(&probe, b"").and_then(|()| fs::remove_file(&probe));
        probed.map_err(|error| cannot("write", error))?;
        Ok(store)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn files(&self) -> usize {
        self.kept.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All our files may have.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Removes our files that hold nothing from `stamp` on.
    pub fn expire(&mut self, stamp: &str) {
        let (mut at, mut stuck) = (0, 0);
        while let Some(file) = self.kept.get(at)
            && stuck < MAX_STUCK
        {
            if file.newest.as_str() >= stamp {
                at += 1;
            } else if self.remove(at).is_err() {
                (at, stuck) = (at + 1, stuck + 1);
            }
        }
    }

    /// Removes the file at this place of the list. One that cannot be removed stays there and
    /// is told once: the others make room in its place.
    fn remove(&mut self, at: usize) -> Result<(), SinkError> {
        let Some(file) = self.kept.get_mut(at) else { return Ok(()) };
        let path = self.dir.join(&file.name);
        match fs::remove_file(&path) {
            // Not found: somebody else tidied up.
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let error = SinkError::Io { what: "remove", path, source };
                if !std::mem::replace(&mut file.is_stuck, true) {
                    log::warn!("sink files: {error}; others go in its place");
                }
                Err(error)
            }
            _ => {
                self.bytes -= self.kept.remove(at).map_or(0, |file| file.bytes);
                Ok(())
            }
        }
    }

    /// Writes a whole file, after making room for it. `spare` is never removed.
    pub fn write(
        &mut self,
        name: &str,
        content: &[u8],
        spare: Option<&str>,
    ) -> Result<(), SinkError> {
        let bytes = content.len() as u64;
        self.make_room(1, bytes, spare)?;
        let path = self.path(name);
        let written = self.in_dir(|| write_atomically(&path, content));
        written.map_err(|source| SinkError::Io { what: "write", path, source })?;
        self.count(name, bytes);
        Ok(())
    }

    /// What `create` makes in the directory, which is made again where somebody removed it.
    pub fn in_dir<T>(&self, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.dir)?;
                create()
            }
            done => done,
        }
    }

    /// Removes our oldest files until `files` more with `bytes` more are within the limits.
    pub fn make_room(
        &mut self,
        files: usize,
        bytes: u64,
        spare: Option<&str>,
    ) -> Result<(), SinkError> {
        let (mut at, mut stuck) = (0, 0);
        while self.kept.len() + files > self.max_files || self.bytes + bytes > self.max_bytes {
            let Some(file) = self.kept.get(at) else { return Err(self.no_room(files, bytes)) };
            if Some(file.name.as_str()) == spare {
                at += 1;
            } else if let Err(error) = self.remove(at) {
                (at, stuck) = (at + 1, stuck + 1);
                if stuck == MAX_STUCK {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn no_room(&self, files: usize, bytes: u64) -> SinkError {
        let source = io::Error::other(format!(
            "{files} file(s) of {bytes} bytes do not fit into max_files = {} and max_mib = {}",
            self.max_files,
            self.max_bytes >> 20
        ));
        SinkError::Io { what: "make room in", path: self.dir.clone(), source }
    }

    /// Notes that the file `name` has come to be with so many `bytes`.
    pub fn count(&mut self, name: &str, bytes: u64) {
        self.bytes += bytes;
        match self.find(name) {
            // The same frame again: its file was replaced.
            Some(file) => {
                let before = std::mem::replace(&mut file.bytes, bytes);
                self.bytes -= before;
            }
            None => self.kept.push_back(Kept::new(name, bytes, name)),
        }
    }

    /// Notes that a line has made `name` longer by `bytes`, of the frame whose files begin
    /// with `stem`.
    pub fn count_line(&mut self, name: &str, bytes: u64, stem: &str) {
        self.bytes += bytes;
        match self.find(name) {
            Some(file) => {
                file.bytes += bytes;
                file.newest = stem.into();
            }
            None => self.kept.push_back(Kept::new(name, bytes, stem)),
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Kept> {
        self.kept.iter_mut().rev().find(|file| file.name == name)
    }
}

/// The entry as a file of ours. What a killed run left half-written is removed.
fn adopt(entry: &DirEntry) -> Option<Kept> {
    let name = entry.file_name().into_string().ok()?;
    if meant_for(&name).is_some_and(|name| is_ours(name) || name == "probe") {
        let _ = fs::remove_file(entry.path());
        return None;
    }
    let metadata = entry.metadata().ok().filter(|data| is_ours(&name) && data.is_file())?;
    let written = metadata.modified().ok().filter(|_| name.ends_with(".jsonl")).map(wall::stamp);
    let newest = written.as_deref().unwrap_or(&name);
    Some(Kept::new(&name, metadata.len(), newest))
}

/// Whether this is a name that the sink gives: `YYYYMMDDThhmmss.uuuuuuZ_SEQUENCE_ENDING`.
fn is_ours(name: &str) -> bool {
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
    let Some((stamp, sequence)) = stem.and_then(|stem| stem.split_once('_')) else { return false };
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "00000000T000000.000000Z"
        && sequence.len() >= 10
        && sequence.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    const DAY: &str = "20261123T12";

    /// The name of a file of some minute.
    fn at(minute: usize, ending: &str) -> String {
        format!("{DAY}{minute:02}00.000000Z_0000000001_{ending}")
    }

    fn names(store: &Store) -> Vec<&str> {
        store.kept.iter().map(|file| &*file.name).collect()
    }

    #[test]
    fn lines_are_as_old_as_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 10, 1 << 20).unwrap();
        let (lines, map) = (at(0, "heatmaps.jsonl"), at(1, "maps.npy"));
        fs::write(dir.path().join(&lines), "{}\n{}\n").unwrap();
        store.count_line(&lines, 3, &at(0, ""));
        store.write(&map, b"x", None).unwrap();
        store.count_line(&lines, 3, &at(2, ""));
        store.expire(&at(2, ""));
        assert_eq!(names(&store), [&lines]);
        assert_eq!((store.files(), store.bytes()), (1, 6));
        store.expire(&at(3, ""));
        assert_eq!((store.files(), store.bytes()), (0, 0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn lines_of_an_earlier_run_are_as_old_as_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let lines = "20200101T000000.000000Z_0000000001_heatmaps.jsonl";
        fs::write(dir.path().join(lines), "{}\n").unwrap();
        let mut store = Store::open(dir.path(), 10, 1 << 20).unwrap();
        let ago = |s| wall::stamp(SystemTime::now() - Duration::from_secs(s));
        store.expire(&ago(3600));
        assert_eq!(names(&store), [lines]);
        let written = SystemTime::now() - Duration::from_secs(7200);
        File::open(dir.path().join(lines)).unwrap().set_modified(written).unwrap();
        let mut store = Store::open(dir.path(), 10, 1 << 20).unwrap();
        store.expire(&ago(3600));
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_removed_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 3, 1 << 20).unwrap();
        let name = |minute| at(minute, "maps.npy");
        (0..3).for_each(|minute| store.write(&name(minute), b"x", None).unwrap());
        // A folder is no file.
        fs::remove_file(dir.path().join(name(0))).unwrap();
        fs::create_dir(dir.path().join(name(0))).unwrap();
        store.write(&name(3), b"x", None).unwrap();
        assert_eq!(names(&store), [name(0), name(2), name(3)]);
        store.expire(&name(3));
        assert_eq!(names(&store), [name(0), name(3)]);
        assert_eq!(store.bytes(), 2);
    }

    #[test]
    fn only_its_own_names_are_its_own() {
        for name in [
            "20261123T121617.000042Z_0000000042_overlay.png",
            "20261123T121617.000042Z_18446744073709551615_maps.npy",
            "20261123T121617.000042Z_0000000042_heatmaps.jsonl",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "overlay.png",
            "_overlay.png",
            "20261123T121617.000042Z_42_overlay.png",
            "20261123T121617.000042Z_0000000042_overlay.png.bak",
            "20261123T121617.000042Z_0000000042_photo.png",
            "20261123_121617.000042Z_0000000042_overlay.png",
            "20261123T121617.000042Z_000000004x_overlay.png",
            ".20261123T121617.000042Z_0000000042_overlay.png",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
