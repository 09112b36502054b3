//! `strftime_now` of chat templates.

use super::python::invalid;
use minijinja::Error;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Days of the week from that of 1 January 1970.
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// Formats the time of now, which is that of UTC here, as Python's `strftime` does.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    if cfg!(all(target_arch = "wasm32", target_os = "unknown")) {
        return Err(invalid(
            "the template asks for the date, and there is no clock; give it the date as a variable",
        ));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime(format, now.map_or(0, |now| now.as_secs()))
}

/// Formats a time in seconds since 1970.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let (year, month, day) = date(days);
    let weekday = DAYS[(days % 7) as usize];
    let name = MONTHS[month as usize - 1];
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let is_short = directive == Some('-');
        if is_short {
            directive = characters.next();
        }
        let width = if is_short { 1 } else { 2 };
        // Writing to a string does not fail.
        let _ = match directive {
            Some('Y') => write!(text, "{year}"),
            Some('y') => write!(text, "{:0width$}", year % 100),
            Some('m') => write!(text, "{month:0width$}"),
            Some('d') => write!(text, "{day:0width$}"),
            Some('e') => write!(text, "{day:2}"),
            Some('H') => write!(text, "{hour:0width$}"),
            Some('I') => write!(text, "{:0width$}", (hour + 11) % 12 + 1),
            Some('M') => write!(text, "{minute:0width$}"),
            Some('S') => write!(text, "{second:0width$}"),
            Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('B') => write!(text, "{name}"),
            Some('b' | 'h') => write!(text, "{}", &name[..3]),
            Some('A') => write!(text, "{weekday}"),
            Some('a') => write!(text, "{}", &weekday[..3]),
            Some('F') => write!(text, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(text, "{hour:02}:{minute:02}:{second:02}"),
            Some('%') => write!(text, "%"),
            other => {
                let directive = other.map_or("at its end".to_string(), |c| format!("%{c}"));
                return Err(invalid(format!("strftime_now does not know {directive}")));
            }
        };
    }
    Ok(text)
}

/// Returns year, month and day of a number of days since 1970, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since 1 March of the year 0: the leap day is then the last of a year (Hinnant, *chrono-compatible low-level date
    // algorithms*).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts by `datetime.fromtimestamp(seconds, UTC).strftime` of Python 3.11.
    #[test]
    fn dates_are_those_of_python() {
        for (seconds, format, text) in [
            (0, "%d %B %Y, %A", "01 January 1970, Thursday"),
            (951_782_400, "%d %b %Y %a", "29 Feb 2000 Tue"),
            (
                1_796_064_224,
                "%Y-%m-%d %H:%M:%S %y",
                "2026-11-30 18:43:44 26",
            ),
            (1_796_064_224, "%I:%M %p 100%%", "06:43 PM 100%"),
            (4_102_444_799, "%d %b %Y", "31 Dec 2099"),
        ] {
            assert_eq!(strftime(format, seconds).unwrap(), text);
        }
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("a %", 0).is_err());
    }
}
