//! `salientd eval`: how good the maps are, on photos. What all its commands share.

pub mod localize;
pub mod stream;
pub mod tta;

use super::args::EvalOptions;
use crate::model::Model;
use crate::sink::write_atomically;
use anyhow::{Context, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// With which model, in the JSON of every command.
#[derive(Serialize)]
pub struct Measured<'a> {
    model: &'a str,
    model_sha256: &'a str,
    int8: bool,
    /// `[height, width]`.
    size: [usize; 2],
}

impl<'a> Measured<'a> {
    pub fn with(model: &'a Model, size: [usize; 2]) -> Self {
        Self { model: &model.name, model_sha256: &model.sha256, int8: model.is_int8(), size }
    }
}

/// The folder for results, if one is wanted.
pub struct Output {
    folder: Option<PathBuf>,
}

impl Output {
    /// Makes the folder. Files of these names must not be there without `--force`: better
    /// said now than after an hour's work.
    pub fn prepare(options: &EvalOptions, names: &[&str]) -> anyhow::Result<Self> {
        Self::folder(options.out.as_ref(), options.force, names)
    }

    /// As [`prepare`](Self::prepare), for commands with options of their own.
    pub fn folder(out: Option<&PathBuf>, force: bool, names: &[&str]) -> anyhow::Result<Self> {
        let Some(folder) = out else { return Ok(Self { folder: None }) };
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let old = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
        if let Some(old) = old.filter(|_| !force) {
            bail!("{}: is there already; overwrite it with --force", old.display());
        }
        Ok(Self { folder: Some(folder.clone()) })
    }

    /// Writes one of the files, if there is a folder.
    pub fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path: &Path = &folder.join(name);
        write_atomically(path, content.as_bytes()).with_context(|| path.display().to_string())
    }
}
