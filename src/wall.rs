//! Wall-clock times as text, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Nanoseconds since 1970-01-01T00:00:00Z; negative before.
pub fn unix_ns(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

/// RFC 3339 with nanoseconds: `2026-11-23T12:16:17.000000042Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let t = Civil::of(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year, t.month, t.day, t.hour, t.minute, t.second, t.nanosecond
    )
}

/// For people, to the second: `2026-11-23 12:16:17 UTC`.
pub fn short(time: SystemTime) -> String {
    let t = Civil::of(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    )
}

/// For file names, which then sort by time: `20261123T121617.000042Z`.
pub fn stamp(time: SystemTime) -> String {
    let t = Civil::of(time);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}.{:06}Z",
        t.year,
        t.month,
        t.day,
        t.hour,
        t.minute,
        t.second,
        t.nanosecond / 1000
    )
}

/// A moment in the proleptic Gregorian calendar, UTC.
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanosecond: u32,
}

impl Civil {
    fn of(time: SystemTime) -> Self {
        let ns = unix_ns(time);
        let seconds = ns.div_euclid(NANOS_PER_SECOND) as i64;
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = date(seconds.div_euclid(SECONDS_PER_DAY));
        Self {
            year,
            month,
            day,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            nanosecond: ns.rem_euclid(NANOS_PER_SECOND) as u32,
        }
    }
}

/// Year, month and day of a count of days since 1970-01-01. Works in years that begin
/// on 1 March, so that the leap day comes last, and in eras of 400 years (146,097 days).
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
fn date(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn formats_known_moments() {
        // Reference: `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000042Z"),
            (951_782_399, "2000-02-28T23:59:59.000000042Z"),
            (951_782_400, "2000-02-29T00:00:00.000000042Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000042Z"),
            (1_795_436_177, "2026-11-23T12:16:17.000000042Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000042Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, 42)), text);
        }
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        assert_eq!(rfc3339(before), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(unix_ns(before), -1);
        let time = UNIX_EPOCH + Duration::new(1_795_436_177, 42_000);
        assert_eq!(stamp(time), "20261123T121617.000042Z");
        assert_eq!(short(time), "2026-11-23 12:16:17 UTC");
    }
}
