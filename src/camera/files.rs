//! Image files as a camera: files, folders and globs, in order, at a steady rate.

use super::image::load_image;
use super::pace::Pace;
use super::{Camera, CameraCounters, CameraError};
use crate::config::FilesConfig;
use crate::frame::{Frame, FrameLayout, Picture, PixelFormat, YuvMatrix, YuvRange};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Most files in one source; the list stands in memory.
const MAX_FILES: usize = 1_000_000;

const NAME: &str = "camera.files.paths";

/// Yields every image of a set in turn; none is skipped but those that cannot be read.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    next: usize,
    repeat: bool,
    pace: Pace,
    fps: f64,
    /// Whether an image was read since the first of the set.
    any_in_round: bool,
    sequence: u64,
    counters: CameraCounters,
}

impl Files {
    /// Lists the files once. `timeout`: the longest wait for a frame that is no stall.
    pub fn open(config: &FilesConfig, timeout: Duration) -> Result<Self, CameraError> {
        let pace = Pace::new("camera.files.fps", config.fps, timeout)?;
        let paths = expand(&config.paths)?;
        Ok(Self {
            paths,
            next: 0,
            repeat: config.repeat,
            pace,
            fps: config.fps,
            any_in_round: false,
            sequence: 0,
            counters: CameraCounters::default(),
        })
    }

    /// The next readable image; the unreadable before it are counted. None: none by then, and
    /// those tried are behind us.
    fn next_picture(&mut self, deadline: Instant) -> Result<Option<Picture>, CameraError> {
        loop {
            if self.next == self.paths.len() {
                if !self.any_in_round {
                    let why = format!("none of the {} files is an image", self.paths.len());
                    return Err(CameraError::unusable(NAME, why));
                }
                if !self.repeat {
                    return Err(CameraError::End(NAME.into()));
                }
                (self.next, self.any_in_round) = (0, false);
            }
            let path = &self.paths[self.next];
            self.next += 1;
            match load_image(path) {
                Ok(picture) => {
                    self.any_in_round = true;
                    return Ok(Some(picture));
                }
                Err(error) => {
                    log::warn!("{error}");
                    self.counters.bad += 1;
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl Camera for Files {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let deadline = Instant::now() + timeout;
        let stalled = CameraError::stalled(NAME, timeout);
        if !self.pace.wait(timeout) {
            return Err(stalled);
        }
        let picture = self.next_picture(deadline)?.ok_or(stalled)?;
        let sequence = self.sequence;
        self.sequence += 1;
        self.counters.frames += 1;
        let (width, height) = (picture.width as u32, picture.height as u32);
        Ok(Frame {
            layout: rgb_layout(width, height),
            data: picture.rgb,
            sequence,
            captured_at: Instant::now(),
            captured_wall: SystemTime::now(),
        })
    }

    fn describe(&self) -> String {
        let rounds = if self.repeat { "looped" } else { "once" };
        format!("{} image files, {rounds} @ {}", self.paths.len(), self.fps)
    }

    fn counters(&self) -> CameraCounters {
        self.counters
    }

    /// Opened anew it would begin with its first file.
    fn outlasts_stalls(&self) -> bool {
        true
    }
}

/// The layout of a frame that already is RGB, without padding.
pub(super) fn rgb_layout(width: u32, height: u32) -> FrameLayout {
    FrameLayout {
        format: PixelFormat::Rgb3,
        width,
        height,
        stride_bytes: width * 3,
        matrix: YuvMatrix::Bt601,
        range: YuvRange::Full,
    }
}

/// Files as they are, the images of folders and the files that a pattern matches, each in
/// name order. An entry without any file is a warning as long as another has some.
fn expand(entries: &[String]) -> Result<Vec<PathBuf>, CameraError> {
    let mut paths = Vec::new();
    let mut problems = Vec::new();
    for entry in entries {
        match expand_one(entry) {
            Ok(found) => paths.extend(found),
            Err(why) => problems.push(format!("{entry}: {why}")),
        }
        if paths.len() > MAX_FILES {
            let why = format!("more than {MAX_FILES} files");
            return Err(CameraError::unusable(NAME, why));
        }
    }
    if paths.is_empty() {
        let why = if entries.is_empty() {
            "empty: name image files, folders or patterns such as \"photos/*.jpg\"".into()
        } else {
            format!("no image file: {}", problems.join("; "))
        };
        return Err(CameraError::unusable(NAME, why));
    }
    problems.iter().for_each(|problem| log::warn!("{NAME}: {problem}"));
    Ok(paths)
}

fn expand_one(entry: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(entry);
    let mut found: Vec<PathBuf> = if path.is_dir() {
        images_in(path)?
    } else if path.exists() {
        vec![path.to_path_buf()]
    } else if entry.contains(['*', '?', '[']) {
        let matches = glob::glob(entry).map_err(|e| format!("bad pattern: {e}"))?;
        matches.filter_map(Result::ok).filter(|p| p.is_file()).take(MAX_FILES + 1).collect()
    } else {
        return Err("no such file or folder".into());
    };
    if found.is_empty() {
        return Err("the pattern matches no file".into());
    }
    found.sort();
    Ok(found)
}

/// The images of a folder in name order: at least one; subfolders are not looked into.
pub fn images_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let files = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let mut found: Vec<PathBuf> = files
        .filter_map(|file| file.ok().map(|file| file.path()))
        .filter(|path| has_image_name(path))
        .take(MAX_FILES + 1)
        .collect();
    if found.is_empty() {
        return Err("no .png, .jpg or .jpeg in the folder".into());
    }
    found.sort();
    Ok(found)
}

fn has_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_take_no_longer_than_the_time_given_and_are_not_tried_twice() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.jpg"] {
            std::fs::write(dir.path().join(name), "no picture").unwrap();
        }
        image::RgbImage::new(1, 1).save(dir.path().join("c.png")).unwrap();
        let paths = vec![dir.path().to_str().unwrap().to_owned()];
        let config = FilesConfig { paths, repeat: false, fps: 1000.0 };
        let mut files = Files::open(&config, Duration::from_secs(1)).unwrap();
        for bad in 1..=2 {
            assert!(files.next_picture(Instant::now()).unwrap().is_none());
            assert_eq!(files.counters.bad, bad);
        }
        assert!(files.next_picture(Instant::now()).unwrap().is_some());
        let end = files.next_picture(Instant::now()).unwrap_err();
        assert!(matches!(end, CameraError::End(_)), "{end}");
    }
}
