//! `salientd explain`.

use super::args::ExplainArgs;

pub fn run(_args: &ExplainArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
