//! A progress bar for whatever takes more than a moment.

use indicatif::{ProgressBar, ProgressStyle};

/// Counts to `len` of `what`; invisible where standard error is no terminal, and for one.
pub fn bar(len: u64, what: &'static str) -> ProgressBar {
    if len < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style).with_message(what)
}
