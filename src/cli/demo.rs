//! `salientd demo`.

use super::args::DemoArgs;

pub fn run(_args: &DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
