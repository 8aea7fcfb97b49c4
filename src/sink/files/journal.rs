//! The `.jsonl` file that lines are appended to.

use super::store::Store;
use crate::sink::SinkError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

/// A file of this size is followed by a new one.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Appends whole lines; begins new files by day and size.
pub(super) struct Journal {
    max_file_bytes: u64,
    current: Option<Current>,
}

struct Current {
    name: String,
    file: File,
    bytes: u64,
}

impl Journal {
    /// `max_bytes`: what all files together may have. The current file is never removed
    /// to make room, so it must stay a small part of that.
    pub fn new(max_bytes: u64) -> Self {
        Self { max_file_bytes: MAX_FILE_BYTES.min(max_bytes / 4), current: None }
    }

    /// The file that is being appended to.
    pub fn name(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.name.as_str())
    }

    /// Appends `line`, of the heatmap whose files begin with `stem`. A line that cannot
    /// be written in full leaves nothing of it.
    pub fn append(&mut self, store: &mut Store, stem: &str, line: &[u8]) -> Result<(), SinkError> {
        if self.current.as_ref().is_some_and(|current| self.is_full(current, stem, line)) {
            self.close(store)?;
        }
        if self.current.as_ref().is_some_and(was_removed) {
            self.current = None;
        }
        let bytes = line.len() as u64;
        let is_new = self.current.is_none();
        store.make_room(is_new.into(), bytes, self.name())?;
        let name = self.name().map_or_else(|| format!("{stem}_heatmaps.jsonl"), str::to_owned);
        let path = store.path(&name);
        let failed = |what, source| SinkError::Io { what, path: path.clone(), source };
        if is_new {
            let open = || OpenOptions::new().append(true).create(true).open(&path);
            let file = store.in_dir(open);
            let file = file.map_err(|source| failed("create", source))?;
            let bytes = file.metadata().map_err(|source| failed("create", source))?.len();
            self.current = Some(Current { name: name.clone(), file, bytes });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Err(source) = append_whole(current, line) {
            if current.bytes == 0 {
                // Nor does an empty file stay.
                let _ = std::fs::remove_file(&path);
                self.current = None;
            }
            return Err(failed("append to", source));
        }
        store.count_line(&name, bytes, stem);
        Ok(())
    }

    /// Whether `line` belongs into a new file.
    fn is_full(&self, current: &Current, stem: &str, line: &[u8]) -> bool {
        const DAY: usize = "YYYYMMDD".len();
        current.bytes + line.len() as u64 > self.max_file_bytes
            || current.name.get(..DAY) != stem.get(..DAY)
    }

    /// Ends the current file; all its lines are on the disk then.
    pub fn close(&mut self, store: &Store) -> Result<(), SinkError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let path = store.path(&current.name);
        current.file.sync_all().map_err(|source| SinkError::Io { what: "sync", path, source })
    }
}

/// Whether somebody else removed the file: lines would go nowhere.
fn was_removed(current: &Current) -> bool {
    current.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

fn append_whole(current: &mut Current, line: &[u8]) -> io::Result<()> {
    let written = current.file.write_all(line);
    match written {
        Ok(()) => current.bytes += line.len() as u64,
        // The disk may have taken a part.
        Err(_) => current.file.set_len(current.bytes)?,
    }
    written
}
