//! `salientd completions` and `salientd man`: made from the argument definitions.

use super::args::{Cli, CompletionsArgs};
use clap::CommandFactory;
use std::io::{Write, stdout};

pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // clap_complete panics on a closed pipe, so it writes to memory first.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "salientd", &mut script);
    stdout().write_all(&script)?;
    Ok(())
}

/// One page for the program and all its commands, each in a section of its own.
pub fn man() -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        writeln!(page, ".SH \"SALIENTD {}\"", sub.get_name().to_uppercase())?;
        let man = clap_mangen::Man::new(sub.clone());
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    stdout().write_all(&page)?;
    Ok(())
}
