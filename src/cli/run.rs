//! `salientd run`.

use super::args::RunArgs;

pub fn run(_args: &RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
