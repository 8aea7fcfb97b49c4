//! `salientd watch`.

use super::args::WatchArgs;

pub fn run(_args: &WatchArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
