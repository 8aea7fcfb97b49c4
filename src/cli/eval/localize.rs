//! `salientd eval localize`: photos and boxes in, localisation scores out.

use crate::cli::args::LocalizeArgs;
use crate::cli::eval::Output;
use crate::eval::images;

pub fn run(args: &LocalizeArgs) -> anyhow::Result<()> {
    let _config = args.options.effective_config()?;
    let _photos = images::list(&args.options.images, args.options.limit())?;
    let _output = Output::prepare(&args.options, &[])?;
    anyhow::bail!("not measured yet")
}
