//! Values that people write as text, read the same way from the file, the API and the command line.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::check::StatusRange;

/// Status codes that a server can send (RFC 9110 section 15).
const STATUS_CODES: RangeInclusive<u16> = 100..=599;

/// Why a text is no value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {help}")]
pub struct TextError {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

fn error(message: String, help: impl Into<String>) -> TextError {
    TextError {
        message,
        help: help.into(),
    }
}

/// Reads an address with a port: `127.0.0.1:9180`, `[::1]:9180`.
///
/// # Errors
/// [`TextError`].
pub fn socket_address(text: &str) -> Result<SocketAddr, TextError> {
    text.parse().map_err(|_| {
        error(
            format!("`{text}` is no address with a port"),
            "write it like `127.0.0.1:9180` or `[::1]:9180`".to_owned(),
        )
    })
}

/// Reads an IPv4 or IPv6 address: no port, no prefix length, no brackets, no name.
///
/// # Errors
/// [`TextError`] with a hint that fits what was written.
pub fn address(text: &str) -> Result<IpAddr, TextError> {
    text.parse().map_err(|_| {
        let message = format!("`{text}` is not an IP address");
        if let Some((host, _)) = text.rsplit_once('/')
            && host.parse::<IpAddr>().is_ok()
        {
            return error(
                message,
                format!("write it without a prefix length: `{host}`"),
            );
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let ip = socket.ip();
            return error(
                message,
                format!("write `{ip}`; the port has a key of its own"),
            );
        }
        error(
            message,
            "write it like `203.0.113.10` or `2001:db8::10` (names are not resolved)",
        )
    })
}

/// A unit of time, and how many of the smallest it is.
type Unit = (&'static str, i64);

/// Reads a time span: a whole number and `s`, `m` or `h`. Unit of the result: seconds.
///
/// # Errors
/// [`TextError`] with an example.
pub fn duration_s(text: &str) -> Result<i64, TextError> {
    const UNITS: &[Unit] = &[("s", 1), ("m", 60), ("h", 3_600)];
    duration(text, UNITS, "`90s`, `15m` or `2h`")
}

/// Reads a time span: a whole number and `ms`, `s`, `m` or `h`. Unit of the result: milliseconds.
///
/// # Errors
/// [`TextError`] with an example.
pub fn duration_ms(text: &str) -> Result<i64, TextError> {
    const UNITS: &[Unit] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    duration(text, UNITS, "`500ms`, `2s` or `1m`")
}

fn duration(text: &str, units: &[Unit], examples: &str) -> Result<i64, TextError> {
    let unusable = || {
        let help = format!("write a whole number and its unit: {examples}");
        error(format!("`{text}` is not a time span"), help)
    };
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(unusable)?;
    let (digits, unit) = text.split_at(digits_end);
    let unit = units.iter().find(|(name, _)| *name == unit.trim_start());
    let (_, size) = unit.ok_or_else(unusable)?;
    let count: i64 = digits.parse().map_err(|_| unusable())?;
    count.checked_mul(*size).ok_or_else(unusable)
}

/// Reads status codes such as `200`, `200-399` or `200, 301-308`.
///
/// # Errors
/// [`TextError`] with an example.
pub fn status_ranges(text: &str) -> Result<Vec<StatusRange>, TextError> {
    text.split(',')
        .map(|part| status_range(part.trim()))
        .collect()
}

fn status_range(text: &str) -> Result<StatusRange, TextError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| {
        let digits = text.trim();
        let is_plain = digits.len() == 3 && digits.bytes().all(|one| one.is_ascii_digit());
        let code = is_plain.then(|| digits.parse::<u16>().ok()).flatten();
        code.filter(|code| STATUS_CODES.contains(code))
    };
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        _ => Err(error(
            format!("`{text}` is neither a status code nor a range of them"),
            "write codes from 100 to 599, such as `200`, `200-399` or `200, 301-308`",
        )),
    }
}

/// Writes a time span in the largest unit that keeps it whole. `milliseconds` is the span.
pub fn write_duration_ms(milliseconds: u32) -> String {
    match milliseconds {
        ms if ms.is_multiple_of(1_000) => write_duration(ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// Writes a time span in the largest unit that keeps it whole.
pub fn write_duration(seconds: u32) -> String {
    match seconds {
        0 => "0s".to_owned(),
        s if s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_extras_get_the_hint_that_fits() {
        assert_eq!(address("2001:db8::1"), Ok("2001:db8::1".parse().unwrap()));
        let hint = |text| address(text).unwrap_err().help;
        assert_eq!(
            hint("10.0.0.1/24"),
            "write it without a prefix length: `10.0.0.1`"
        );
        assert_eq!(
            hint("[2001:db8::1]:80"),
            "write `2001:db8::1`; the port has a key of its own"
        );
        assert!(hint("web1.example").contains("names are not resolved"));
    }

    #[test]
    fn time_spans_round_trip_and_nonsense_is_refused() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("1 m", 60)] {
            assert_eq!(duration_s(text), Ok(seconds));
        }
        for text in [
            "",
            "15",
            "m",
            "1.5h",
            "-3s",
            "3d",
            "99999999999999999999s",
            "9223372036854775807h",
        ] {
            assert!(duration_s(text).is_err(), "{text}");
        }
        assert_eq!(write_duration(900), "15m");
        assert_eq!(write_duration(61), "61s");
        assert_eq!(write_duration(7200), "2h");
    }
    #[test]
    fn time_spans_may_be_of_milliseconds_where_seconds_are_too_long() {
        for (text, ms) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m", 60_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms));
        }
        for text in ["500", "ms", "0.5s", "500us", "9223372036854775s00"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
        assert!(duration_s("500ms").is_err());
        assert_eq!(write_duration_ms(500), "500ms");
        assert_eq!(write_duration_ms(120_000), "2m");
    }

    #[test]
    fn status_codes_are_single_or_ranges() {
        let range = |first, last| StatusRange { first, last };
        assert_eq!(status_ranges("200"), Ok(vec![range(200, 200)]));
        assert_eq!(
            status_ranges("200-299, 401 ,500 - 599"),
            Ok(vec![range(200, 299), range(401, 401), range(500, 599)])
        );
        for text in [
            "",
            "20",
            "2xx",
            "399-200",
            "99",
            "600",
            "200-",
            "200,",
            "+200",
            "200-300-400",
        ] {
            assert!(status_ranges(text).is_err(), "{text}");
        }
    }
}
