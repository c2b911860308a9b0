//! [`Timestamp`] as text: RFC 3339, written in UTC with milliseconds, read with
//! any offset.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;

use super::limits::{InvalidInput, Timestamp};

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

impl fmt::Display for Timestamp {
    /// `2026-11-23T10:00:00.000Z`; a moment after the year 9999 is its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.as_millis())
            .ok()
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        PRINTER.print_timestamp(&moment, StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidInput;
    /// Reads a date and time with an offset, of 1970 or later.
    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let wrong = || {
            InvalidInput::new(
                "time",
                "must be like 2026-11-23T10:00:00Z (RFC 3339), of 1970 or later, \
                 with an offset of less than 24 hours",
            )
        };
        if !has_the_shape(text.as_bytes()) {
            return Err(wrong());
        }
        let moment: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        let millis = u64::try_from(moment.as_millisecond()).map_err(|_| wrong())?;
        Ok(Self::from_millis(millis))
    }
}

/// Whether `text` is `full-date "T" full-time` of RFC 3339; the parser takes more.
fn has_the_shape(text: &[u8]) -> bool {
    let digits =
        |at: Range<usize>| text.get(at).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    let is = |at: usize, one_of: &[u8]| text.get(at).is_some_and(|byte| one_of.contains(byte));
    let date = digits(0..4) && is(4, b"-") && digits(5..7) && is(7, b"-") && digits(8..10);
    let time = is(10, b"Tt")
        && digits(11..13)
        && is(13, b":")
        && digits(14..16)
        && is(16, b":")
        && digits(17..19);
    let mut rest = text.get(19..).unwrap_or_default();
    if let [b'.', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || length > 9 {
            return false;
        }
        rest = &fraction[length..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h, h2, b':', m, m2] => {
            let digits = [h, h2, m, m2].iter().all(|d| d.is_ascii_digit());
            digits && [*h, *h2] <= *b"23" && [*m, *m2] <= *b"59"
        }
        _ => false,
    };
    date && time && offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Timestamp, InvalidInput> {
        text.parse()
    }

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        let read = read("2026-11-23T12:00:00.5+02:00").expect("RFC 3339");
        assert_eq!(read.to_string(), "2026-11-23T10:00:00.500Z");
        let last = Timestamp::from_millis(u64::MAX).to_string();
        assert!(last.starts_with("9999-12-"), "{last}");
    }

    #[test]
    fn only_rfc_3339_of_1970_or_later_is_read() {
        for good in
            ["2026-11-23t10:00:00z", "2026-11-23T10:00:00+23:59", "2026-11-23T10:00:00-00:00"]
        {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23T10:00:00",
            "2026-11-23 10:00:00Z",
            "2026-11-23T10:00Z",
            "2026-11-23T10:00:00.Z",
            "2026-13-23T10:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T10:00:00+02",
            "2026-11-23T10:00:00+24:00",
            "2026-11-23T10:00:00-24:00",
            "2026-11-23T10:00:00+25:59",
            "2026-11-23T10:00:00+99:00",
            "2026-11-23T10:00:00+02:60",
            "2026-11-23T10:00:00-00:99",
            "2026-11-23T24:00:00Z",
            "2026-11-23T10:60:00Z",
            "2026-11-23T10:00:00Z[Europe/Berlin]",
            "20261123T100000Z",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fraction_has_1_to_9_digits() {
        for (digits, millis) in [("5", 500), ("1239", 123), ("123456789", 123)] {
            let text = format!("1970-01-01T00:00:00.{digits}Z");
            assert_eq!(read(&text), Ok(Timestamp::from_millis(millis)), "{text}");
        }
        assert!(read("1970-01-01T00:00:00.1234567890Z").is_err());
    }
}
