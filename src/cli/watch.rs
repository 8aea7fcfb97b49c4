//! `salientd watch`: the socket's messages in a terminal.

use std::io::Write;
use std::path::Path;

pub fn watch(_path: &Path, _json: bool, _out: &mut impl Write) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
