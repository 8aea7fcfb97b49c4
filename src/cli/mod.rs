//! The command line: each command in a file of its own, reached from [`main`].

pub mod args;
mod bench;
mod check_config;
mod completions;
mod demo;
pub mod doctor;
mod eval;
pub mod exit;
mod explain;
mod inspect;
pub mod logging;
mod progress;
mod run;
mod show_config;
pub mod watch;

use args::{Cli, Command, EvalCommand, ModelCommand};
use clap::Parser;
use std::io::ErrorKind;
use std::process::ExitCode;

/// The program: reads the command line, runs the command, turns its result into an exit
/// code (see [`exit`]). Errors go to standard error as they are, one line each.
pub fn main() -> ExitCode {
    crate::health::memory::return_freed_blocks();
    match dispatch(&Cli::parse().command) {
        Ok(()) => exit::SUCCESS.into(),
        // Whoever read our output has seen enough, as in `salientd man | head`.
        Err(error) if is_broken_pipe(&error) => exit::SUCCESS.into(),
        Err(error) => {
            eprintln!("{}", told(&error));
            exit::code_of(&error).into()
        }
    }
}

fn dispatch(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Model(args) => match &args.command {
            ModelCommand::Inspect(args) => inspect::run(args),
        },
        Command::Eval(args) => match &args.command {
            EvalCommand::Localize(args) => eval::localize::run(args),
            EvalCommand::Tta(args) => eval::tta::run(args),
            EvalCommand::Stream(args) => eval::stream::run(args),
        },
        Command::CheckConfig(args) => check_config::run(args),
        Command::ShowConfig(args) => show_config::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man => completions::man(),
    }
}

/// An error and its causes in one line; a cause that is told already is not told twice.
pub fn told(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
