//! `salientd explain`: image files in, arrays, scores, overlays and a contact sheet out.

use super::args::{ExplainArgs, SizeArg};
use super::progress;
use crate::camera::image::load_image;
use crate::config::Config;
use crate::explain::{Explainer, whole_picture};
use crate::frame::{Moment, Picture};
use crate::heatmap::sheet::Sheet;
use crate::heatmap::{Heatmap, encode, overlay::Overlay};
use crate::model::Model;
use crate::preprocess::geometry::Geometry;
use crate::sink::npy;
use crate::sink::write_atomically;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let mut config = args.effective_config()?;
    if args.config.is_none() {
        config.geometry = whole_picture();
    }
    let stems = stems(&args.images)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let model = Arc::new(Model::configured(&config.model)?);
    let native = args.model.size == Some(SizeArg::Native);
    let mut session = Session { model, config, native, explainers: BTreeMap::new() };
    let mut sheet = Sheet::new(&session.config.overlay);
    let mut overlay = Overlay::new(&session.config.overlay);
    let bar = progress::bar(args.images.len() as u64, "images");
    for (image, stem) in args.images.iter().zip(&stems) {
        let picture = load_image(image)?;
        let (heatmap, logits) = session.explain(&picture)?;
        let to = |end: &str| args.out.join(format!("{stem}{end}"));
        let shape = [heatmap.height, heatmap.width, heatmap.classes.len()];
        write(&to(".npy"), &npy::to_bytes(&shape, &heatmap.values))?;
        write(&to(".json"), &description(image, &heatmap, &logits)?)?;
        write(&to(".png"), &png(overlay.render(&picture, &heatmap))?)?;
        sheet.push(&picture, &heatmap, stem);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let page = args.out.join("sheet.png");
    write(&page, &png(&sheet.into_picture())?)?;
    println!("{} explained; see {}", count(args.images.len()), page.display());
    Ok(())
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".into() } else { format!("{images} images") }
}

/// Explainers by input size: one, unless each picture has its own.
struct Session {
    model: Arc<Model>,
    config: Config,
    native: bool,
    explainers: BTreeMap<[usize; 2], (Explainer, Geometry)>,
}

impl Session {
    fn explain(&mut self, picture: &Picture) -> anyhow::Result<(Heatmap, Vec<f32>)> {
        let own = [picture.height, picture.width];
        let size = match self.native {
            true => own,
            false => self.config.model.size.or(self.model.native_size).unwrap_or(own),
        };
        if !self.explainers.contains_key(&size) {
            let mut explainer = Explainer::with_size(self.model.clone(), &self.config, size)?;
            explainer.keep_class_order();
            let geometry = Geometry::new(&self.config.geometry)?;
            self.explainers.insert(size, (explainer, geometry));
        }
        let (explainer, geometry) = self.explainers.get_mut(&size).context("just made")?;
        let (placement, base) = geometry.fit(picture, size)?;
        // Each picture by itself: what was seen in another does not matter.
        explainer.clear();
        let explained = explainer.explain(base)?;
        let logits = explained.logits.clone();
        let moment =
            Moment { sequence: 0, captured_at: Instant::now(), captured_wall: SystemTime::now() };
        Ok((explained.into_heatmap(&placement, moment), logits))
    }
}

fn description(image: &Path, heatmap: &Heatmap, logits: &[f32]) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&serde_json::json!({
        "image": image.display().to_string(),
        "map": [heatmap.height, heatmap.width],
        "covers": heatmap.covers,
        "classes": heatmap.classes,
        "logits": logits,
        "views": heatmap.views,
        "spent_ms": heatmap.spent_ms,
        "model_sha256": &*heatmap.model_sha256,
    }))?;
    text.push(b'\n');
    Ok(text)
}

fn png(picture: &Picture) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode::png(picture, &mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, bytes).with_context(|| path.display().to_string())
}

/// File names without directory and ending; two images must not overwrite each other.
fn stems(images: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
    let mut stems = Vec::new();
    for image in images {
        let stem = image.file_stem().unwrap_or(image.as_os_str()).to_string_lossy().into_owned();
        if stem == "sheet" {
            bail!("{}: its results would overwrite the contact sheet; rename it", image.display());
        }
        if let Some(other) = seen.insert(stem.clone(), image) {
            bail!(
                "{} and {}: both would be written to {stem}.png; explain them one after the \
                 other into different folders",
                other.display(),
                image.display()
            );
        }
        stems.push(stem);
    }
    Ok(stems)
}
