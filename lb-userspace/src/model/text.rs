//! Values that people write as text, read the same way from the file, the API and the command line.

use std::net::IpAddr;

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
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
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

/// Reads a time span: a whole number and `s`, `m` or `h`. Unit of the result: seconds.
///
/// # Errors
/// [`TextError`] with an example.
pub fn duration_s(text: &str) -> Result<i64, TextError> {
    const HELP: &str = "write a whole number and its unit: `90s`, `15m` or `2h`";
    let unusable = || error(format!("`{text}` is not a time span"), HELP);
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(unusable)?;
    let (digits, unit) = text.split_at(digits_end);
    let seconds_per_unit = match unit.trim_start() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(unusable()),
    };
    let count: i64 = digits.parse().map_err(|_| unusable())?;
    count.checked_mul(seconds_per_unit).ok_or_else(unusable)
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
}
