//! Log lines on standard error: with journald's priorities where it reads them, else with
//! time and level.
//!
//! Levels by meaning: error = we cannot go on, or a fault of ours; warn = the world
//! misbehaves; info = a change of state; debug and trace = for whoever works on the program.

use log::{Level, LevelFilter, Record};
use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a line is dressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `<6>message`: the journal has its own time, and takes the priority from the prefix
    /// (sd-daemon(3)).
    Journal,
    /// `2026-11-23T12:00:00Z INFO message`.
    Plain,
    /// As plain, with the level in colour.
    Colour,
}

/// Starts logging. `level` is the configuration's; the environment variable RUST_LOG
/// overrides it for good, and can name modules (`RUST_LOG=salientd::camera=debug`).
pub fn init(level: &str) {
    let style = detect_style();
    let mut builder = env_logger::Builder::new();
    // Other crates say what only their authors can use; they are heard when they warn.
    builder.filter_level(LevelFilter::Warn).filter_module("salientd", LevelFilter::Trace);
    builder.parse_env("RUST_LOG");
    builder.format(move |out, record| write_record(out, style, SystemTime::now(), record));
    // A second call, in a test say, leaves the first one's logger.
    if builder.try_init().is_ok() {
        set_level(level);
    }
}

/// Takes up the level of a reloaded configuration, unless RUST_LOG rules.
pub fn set_level(level: &str) {
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(level.parse().unwrap_or(LevelFilter::Info));
    }
}

fn detect_style() -> Style {
    if std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream)) {
        Style::Journal
    } else if stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Style::Colour
    } else {
        Style::Plain
    }
}

/// Whether standard error is the stream that JOURNAL_STREAM names as `DEVICE:INODE`. It
/// need not be: the variable is inherited even by children whose output goes elsewhere
/// (systemd.exec(5)).
fn is_stderr(stream: &str) -> bool {
    rustix::fs::fstat(stderr()).is_ok_and(|s| stream == format!("{}:{}", s.st_dev, s.st_ino))
}

fn write_record(
    out: &mut impl Write,
    style: Style,
    now: SystemTime,
    record: &Record<'_>,
) -> std::io::Result<()> {
    let message = record.args().to_string();
    let level = record.level();
    match style {
        // Each line is an entry of its own in the journal.
        Style::Journal => {
            for line in message.lines() {
                writeln!(out, "<{}>{line}", priority(level))?;
            }
            Ok(())
        }
        Style::Plain => writeln!(out, "{} {level:<5} {message}", Utc(now)),
        Style::Colour => {
            let colour = colour(level);
            writeln!(out, "{} \x1b[{colour}m{level:<5}\x1b[0m {message}", Utc(now))
        }
    }
}

/// syslog(3)'s: 3 error, 4 warning, 6 informational, 7 debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// ECMA-48 colour: red, yellow, green, blue, grey.
fn colour(level: Level) -> u8 {
    match level {
        Level::Error => 31,
        Level::Warn => 33,
        Level::Info => 32,
        Level::Debug => 34,
        Level::Trace => 90,
    }
}

/// A moment as `2026-11-23T12:00:00Z` (RFC 3339).
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock before 1970 is one that was never set.
        let seconds = self.0.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days to civil date, counting years from March so that the leap day is the last
        // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_435_200);
        let cases = [
            (Style::Journal, Level::Error, "a\nb", "<3>a\n<3>b\n"),
            (Style::Journal, Level::Warn, "a", "<4>a\n"),
            (Style::Journal, Level::Info, "a", "<6>a\n"),
            (Style::Journal, Level::Debug, "a", "<7>a\n"),
            (Style::Journal, Level::Trace, "a", "<7>a\n"),
            (Style::Plain, Level::Warn, "a", "2026-11-23T12:00:00Z WARN  a\n"),
            (Style::Colour, Level::Error, "a", "2026-11-23T12:00:00Z \x1b[31mERROR\x1b[0m a\n"),
        ];
        for (style, level, message, expected) in cases {
            let mut out = Vec::new();
            let args = format_args!("{message}");
            let record = Record::builder().level(level).args(args).build();
            write_record(&mut out, style, now, &record).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{style:?} {level}");
        }
    }

    #[test]
    fn dates() {
        // Checked with `date -u -d @SECONDS +%FT%TZ`.
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(Utc(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), expected);
        }
    }
}
