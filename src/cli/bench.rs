//! `salientd bench`.

use super::args::BenchArgs;

pub fn run(_args: &BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
