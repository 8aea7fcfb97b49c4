//! `salientd show-config`: the effective configuration.

use super::args::{ShowConfigArgs, load_or_default};
use crate::config::render;
use std::io::{Write, stdout};

pub fn run(args: &ShowConfigArgs) -> anyhow::Result<()> {
    let config = load_or_default(args.config.as_deref())?;
    stdout().write_all(render::effective(&config).trim_start().as_bytes())?;
    Ok(())
}
