//! `salientd model inspect`.

use super::args::InspectArgs;

pub fn run(_args: &InspectArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
