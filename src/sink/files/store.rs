//! The directory: which files in it are ours, and room for the next.

use crate::sink::SinkError;
use crate::sink::atomic::{meant_for, write_atomically};
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

    /// Removes our files from before `stamp`, as their names tell. `spare` is never removed.
    pub fn expire(&mut self, stamp: &str, spare: Option<&str>) -> Result<(), SinkError> {
        let is_old = |file: &Kept| file.name.as_str() < stamp && Some(file.name.as_str()) != spare;
        while let Some(at) = self.kept.iter().position(is_old) {
            self.remove(at)?;
        }
        Ok(())
    }

    /// Removes the file at this place of the list.
    fn remove(&mut self, at: usize) -> Result<(), SinkError> {
        let Some(file) = self.kept.remove(at) else { return Ok(()) };
        let path = self.path(&file.name);
        match fs::remove_file(&path) {
            // Not found: somebody else tidied up.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.kept.push_front(file);
                Err(SinkError::Io { what: "remove", path, source: error })
            }
            _ => {
                self.bytes -= file.bytes;
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
        while self.kept.len() + files > self.max_files || self.bytes + bytes > self.max_bytes {
            let oldest = self.kept.iter().position(|file| Some(file.name.as_str()) != spare);
            let Some(oldest) = oldest else {
                let limits = format!(
                    "{files} file(s) of {bytes} bytes do not fit into max_files = {} and max_mib = {}",
                    self.max_files,
                    self.max_bytes >> 20
                );
                let source = io::Error::other(limits);
                return Err(SinkError::Io { what: "make room in", path: self.dir.clone(), source });
            };
            self.remove(oldest)?;
        }
        Ok(())
    }

    /// Notes that `name` has grown by `bytes`, or come to be with that many.
    pub fn count(&mut self, name: &str, bytes: u64) {
        self.bytes += bytes;
        match self.kept.iter_mut().rev().find(|file| file.name == name) {
            Some(file) if name.ends_with(".jsonl") => file.bytes += bytes,
            // The same frame again: its file was replaced.
            Some(file) => self.bytes -= std::mem::replace(&mut file.bytes, bytes),
            None => self.kept.push_back(Kept { name: name.into(), bytes }),
        }
    }
}

/// The entry as a file of ours. What a killed run left half-written is removed.
fn adopt(entry: &DirEntry) -> Option<Kept> {
    let name = entry.file_name().into_string().ok()?;
    if meant_for(&name).is_some_and(|name| is_ours(name) || name == "probe") {
        let _ = fs::remove_file(entry.path());
        return None;
    }
    let metadata = entry.metadata().ok()?;
    (is_ours(&name) && metadata.is_file()).then_some(Kept { name, bytes: metadata.len() })
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
