//! Numbers for people.

/// Bytes in the largest binary unit that keeps them above 1.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Events a second: whole, or with one decimal below 10.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// A part of a whole in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A time span with its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

/// A port, where 0 means every port.
pub(super) fn port(port: u16) -> String {
    match port {
        0 => "any".to_owned(),
        port => port.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_four_digits_at_most() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn rates_shares_spans_and_ports() {
        assert_eq!(
            [rate(0.0), rate(0.25), rate(9.96), rate(1234.4)],
            ["0", "0.2", "10", "1234"]
        );
        assert_eq!(percent(1.0 / 3.0), "33.3 %");
        let spans = [59, 61, 3_600, 90_000].map(duration);
        assert_eq!(spans, ["59s", "1m 1s", "1h 0m", "1d 1h"]);
        assert_eq!([port(0), port(80)], ["any", "80"]);
    }
}
