//! The long-term mean heatmaps, kept over restarts in a file: one `mean` message of the
//! socket protocol, docs/protocol.md.

use super::atomic::write_atomically;
use super::wire::{self, Decoder, Header, MeanEntry, MeanHeader};
use super::{CameraState, Published, Sink, SinkError};
use crate::config::MeanConfig;
use crate::heatmap::mean::{ClassMean, GRID, MAX_CLASSES, MeanMaps, Scene};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What [`MeanSink`] takes up, for everyone who wants to show it.
pub type SharedMeans = Arc<Mutex<MeanMaps>>;

/// More than any file of ours has: a header of names and every class's map.
const MAX_FILE_BYTES: u64 = (wire::MAX_HEADER_BYTES + 4 * GRID * GRID * MAX_CLASSES + 64) as u64;

/// Takes up heatmaps and keeps their means in a file.
pub struct MeanSink {
    means: SharedMeans,
    path: PathBuf,
    time_constant: Duration,
    save_every: Duration,
    saved_at: Instant,
    /// Whether there is something that the file does not have.
    is_new: bool,
}

impl MeanSink {
    /// Takes up the file where it is of this model. One that cannot be understood is told
    /// of, and replaced at the next write.
    pub fn open(config: &MeanConfig, model_sha256: &str) -> Result<Self, SinkError> {
        let path = config.path.clone();
        let cannot = |does: &str, source: io::Error| {
            SinkError::Open(format!(
                "mean: {}: cannot {does}: {source}; set mean.path to a file that this user may \
                 write",
                path.display()
            ))
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| cannot("create its directory", e))?;
        }
        let probe = path.with_extension("probe");
        write_atomically(&probe, b"")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|e| cannot("write", e))?;
        let time_constant = Duration::from_secs_f64(config.time_constant_s);
        let restored = match restore(&path) {
            Ok(None) => None,
            Ok(Some((scene, classes))) if *scene.model_sha256 == *model_sha256 => {
                log::info!("mean: {}: {} classes taken up", path.display(), classes.len());
                Some(MeanMaps::restored(time_constant, scene, classes))
            }
            Ok(Some(_)) => {
                log::info!("mean: {}: of another model; begins anew", path.display());
                None
            }
            Err(why) => {
                log::warn!("mean: {}: {why}; begins anew", path.display());
                None
            }
        };
        let means = restored.unwrap_or_else(|| MeanMaps::new(time_constant));
        Ok(Self {
            means: Arc::new(Mutex::new(means)),
            path,
            time_constant,
            save_every: Duration::from_secs_f64(config.save_every_s),
            saved_at: Instant::now(),
            is_new: false,
        })
    }

    /// The means as they are at any time.
    pub fn means(&self) -> SharedMeans {
        self.means.clone()
    }

    fn lock(&self) -> MutexGuard<'_, MeanMaps> {
        // A holder that panics leaves means that are at worst one heatmap old.
        self.means.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn save(&mut self) -> Result<(), SinkError> {
        self.saved_at = Instant::now();
        let message = message(&self.lock(), self.time_constant);
        let Some((header, values)) = message else { return Ok(()) };
        let bytes = wire::encode(&Header::Mean(header), &values)?;
        write_atomically(&self.path, &bytes).map_err(|source| SinkError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })?;
        self.is_new = false;
        Ok(())
    }
}

impl Sink for MeanSink {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        if self.lock().add(&item.heatmap) {
            log::info!("mean: another place or size of map: begins anew");
        }
        self.is_new = true;
        if self.saved_at.elapsed() >= self.save_every { self.save() } else { Ok(()) }
    }

    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if self.is_new { self.save() } else { Ok(()) }
    }
}

/// The means as a message; `None` before the first heatmap.
pub fn message(means: &MeanMaps, time_constant: Duration) -> Option<(MeanHeader, Vec<f32>)> {
    let scene = means.scene()?;
    let classes = means.classes();
    let maps: Vec<Vec<f32>> = classes.values().map(ClassMean::mean).collect();
    let cells = 0..scene.height * scene.width;
    let header = MeanHeader {
        dtype: "<f4".into(),
        shape: [scene.height, scene.width, classes.len()],
        classes: classes
            .iter()
            .map(|(&index, mean)| MeanEntry {
                index,
                label: mean.label.clone(),
                weight: mean.weight,
                seen_s: mean.seen_s,
            })
            .collect(),
        picture: scene.picture,
        covers: scene.covers,
        time_constant_s: time_constant.as_secs_f64(),
        model_sha256: scene.model_sha256.to_string(),
    };
    Some((header, cells.flat_map(|i| maps.iter().map(move |map| map[i])).collect()))
}

type Restored = (Scene, std::collections::BTreeMap<usize, ClassMean>);

/// What the file holds; `None` where there is none.
fn restore(path: &Path) -> Result<Option<Restored>, String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
        Ok(file) => file
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("cannot be read: {error}"))?,
    };
    let mut decoder = Decoder::default();
    decoder.feed(&bytes);
    let message = decoder.next_message().map_err(|error| error.to_string())?;
    let message = message.ok_or("cut short")?;
    let Header::Mean(header) = message.header else { return Err("holds no mean maps".into()) };
    let [height, width, count] = header.shape;
    let sides_fit = [height, width].iter().all(|side| (1..=GRID).contains(side));
    if !sides_fit || count != header.classes.len() || count > MAX_CLASSES {
        return Err(format!("maps of {height}x{width} for {count} classes are none of ours"));
    }
    let can_be = |weight, seen_s| (0.0..=1.0).contains(&weight) && seen_s >= 0.0;
    if !header.classes.iter().all(|class| can_be(class.weight, class.seen_s))
        || message.values.iter().any(|value| !value.is_finite())
    {
        return Err("holds numbers that cannot be".into());
    }
    let scene = Scene {
        model_sha256: header.model_sha256.into(),
        picture: header.picture,
        covers: header.covers,
        height,
        width,
    };
    let classes = header.classes.into_iter().enumerate().map(|(c, entry)| {
        let map = message.values.iter().skip(c).step_by(count);
        let sum = map.map(|&value| f64::from(value) * entry.weight).collect();
        (entry.index, ClassMean::new(entry.label, sum, entry.weight, entry.seen_s))
    });
    Ok(Some((scene, classes.collect())))
}
