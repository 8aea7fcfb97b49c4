//! Exit codes: the one place that assigns and documents them.

use crate::config::ConfigErrors;

pub const SUCCESS: u8 = 0;
pub const FAILURE: u8 = 1;
/// clap exits with the same code for a wrong command line.
pub const USAGE: u8 = 2;

/// Shown under `--help` and in the manual page.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed: the one line on standard error says what, where and why
  2  the command line or the configuration is wrong; every problem is listed";

/// The exit code that a command's error stands for.
pub fn code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<ConfigErrors>().is_some() { USAGE } else { FAILURE }
}
