//! `salientd completions` and `salientd man`: made from the argument definitions.

use super::args::{Cli, CompletionsArgs, DEFAULT_CONFIG};
use super::exit;
use clap::CommandFactory;
use clap_mangen::Man;
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
    stdout().write_all(&man_page()?)?;
    Ok(())
}

fn man_page() -> std::io::Result<Vec<u8>> {
    let mut program = Cli::command();
    program.build();
    let mut page = Vec::new();
    let man = Man::new(program.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    writeln!(page, ".SH SYNOPSIS")?;
    let commands = commands(&program, "");
    for (path, _) in &commands {
        writeln!(page, ".B salientd {path}\n.br")?;
    }
    for (path, command) in &commands {
        writeln!(page, ".SH \"{}\"", path.to_uppercase())?;
        let man = Man::new((*command).clone());
        write_body(&mut page, |out| man.render_synopsis_section(out))?;
        write_body(&mut page, |out| man.render_description_section(out))?;
        write_body(&mut page, |out| man.render_options_section(out))?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"\n.nf\n{}\n.fi", exit::HELP)?;
    writeln!(page, ".SH FILES\n.TP\n{DEFAULT_CONFIG}\nConfiguration of the service.")?;
    writeln!(page, ".SH \"SEE ALSO\"\n.BR systemctl (1),\n.BR journalctl (1)")?;
    Ok(page)
}

/// The commands that do something, by their words: `run`, `model inspect`.
fn commands<'c>(parent: &'c clap::Command, path: &str) -> Vec<(String, &'c clap::Command)> {
    let subs = parent.get_subcommands().filter(|sub| sub.get_name() != "help");
    subs.flat_map(|sub| {
        let path = format!("{path} {}", sub.get_name()).trim_start().to_string();
        let below = commands(sub, &path);
        if below.is_empty() { vec![(path, sub)] } else { below }
    })
    .collect()
}

/// A section of a command's own page as a paragraph of ours, without its heading.
fn write_body(
    page: &mut Vec<u8>,
    render: impl Fn(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut section = Vec::new();
    render(&mut section)?;
    for line in String::from_utf8_lossy(&section).lines() {
        let line = if line.starts_with(".SH") { ".PP" } else { line };
        writeln!(page, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_command_and_the_exit_codes() {
        let page = String::from_utf8(man_page().unwrap()).unwrap();
        for heading in ["RUN", "DEMO", "EXPLAIN", "MODEL INSPECT", "CHECK-CONFIG", "EXIT STATUS"] {
            assert!(page.contains(&format!(".SH \"{heading}\"\n")), "{heading}");
        }
        assert!(!page.contains("salientd\\-run(1)"), "a page that is not there");
    }
}
