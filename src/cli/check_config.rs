//! `salientd check-config`: everything wrong with a configuration file.

use super::args::CheckConfigArgs;
use crate::config;
use std::io::{Write, stdout};

pub fn run(args: &CheckConfigArgs) -> anyhow::Result<()> {
    config::load(&args.file)?;
    writeln!(stdout(), "{}: ok", args.file.display())?;
    Ok(())
}
