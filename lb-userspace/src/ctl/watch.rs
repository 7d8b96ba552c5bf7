//! `lbctl stats --watch`: rates from two samples.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::Failure;
use super::args::{Output, StatsArgs};
use super::commands::Sink;
use super::grid::Align::{Left, Right};
use super::grid::Grid;
use super::tables::{ALL_BACKENDS, all_drops};
use super::units::{bytes, rate};
use crate::control::client::Client;
use crate::control::proto::{BackendStats, Counters, Stats};

/// Moves the cursor home and clears to the end of the screen (ECMA-48: CUP, ED).
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// Samples until `count` is reached or the process is stopped. As JSON, one sample a line with the
/// counters as they are: rates are for the reader to take.
pub(super) async fn run<W: Write>(
    client: &Client,
    args: &StatsArgs,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before: Stats = client.get("/v1/stats").await?;
    for sample in 1.. {
        ticks.tick().await;
        let now: Stats = client.get("/v1/stats").await?;
        put(sink, &before, &now)?;
        if args.count == Some(sample) {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

fn put<W: Write>(sink: &mut Sink<'_, W>, before: &Stats, now: &Stats) -> Result<(), Failure> {
    match sink.output {
        Output::Json => {
            serde_json::to_writer(&mut sink.out, now)?;
            sink.out.write_all(b"\n")?;
        }
        Output::Table => {
            // In place on a terminal, one below the other elsewhere.
            let in_place = if std::io::stdout().is_terminal() {
                HOME_AND_CLEAR
            } else {
                ""
            };
            writeln!(sink.out, "{in_place}{}", rates(before, now))?;
        }
    }
    Ok(sink.out.flush()?)
}

/// The table of rates between two samples.
fn rates(before: &Stats, now: &Stats) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("BACKEND", Left),
        ("NEW FLOWS/S", Right),
        ("PACKETS/S", Right),
        ("BYTES/S", Right),
        ("REPLY PACKETS/S", Right),
        ("REPLY BYTES/S", Right),
        ("PACKETS", Right),
    ]);
    let span = Span::between(before, now);
    let mut row = |service: &str, backend: &str, then: Option<&Counters>, now: &Counters| {
        // What was not there in the first sample counts from 0.
        let then = then.copied().unwrap_or_default();
        grid.row([
            service.to_owned(),
            backend.to_owned(),
            rate(span.rate(then.new_flows, now.new_flows)),
            rate(span.rate(then.packets, now.packets)),
            span.bytes(then.bytes, now.bytes),
            rate(span.rate(then.reply_packets, now.reply_packets)),
            span.bytes(then.reply_bytes, now.reply_bytes),
            now.packets.to_string(),
        ]);
    };
    for service in &now.services {
        let mut services = before.services.iter();
        let then = services.find(|then| then.name == service.name);
        let counters = |backend: &BackendStats| {
            let mut backends = then?.backends.iter();
            let found = backends.find(|then| then.name == backend.name);
            found.map(|then| then.counters)
        };
        // Of the backends that are still there: what another one took along was no traffic now.
        let known = service.backends.iter().filter_map(counters);
        let sum = known.fold(Counters::default(), sum);
        row(&service.name, ALL_BACKENDS, Some(&sum), &service.counters);
        for backend in &service.backends {
            let then = counters(backend);
            row(
                &service.name,
                &backend.name,
                then.as_ref(),
                &backend.counters,
            );
        }
    }
    format!("{}{}", grid.draw(), all_drops(now))
}

fn sum(one: Counters, other: Counters) -> Counters {
    Counters {
        packets: one.packets + other.packets,
        bytes: one.bytes + other.bytes,
        new_flows: one.new_flows + other.new_flows,
        reply_packets: one.reply_packets + other.reply_packets,
        reply_bytes: one.reply_bytes + other.reply_bytes,
    }
}

/// The time between two samples, by the daemon's clock.
struct Span(Duration);

impl Span {
    fn between(before: &Stats, now: &Stats) -> Self {
        // A daemon that was restarted in between counts from its start.
        let start_ms = if now.uptime_ms < before.uptime_ms {
            0
        } else {
            before.uptime_ms
        };
        Self(Duration::from_millis((now.uptime_ms - start_ms).max(1)))
    }

    /// A second; a counter that went back was reset, and counts from 0.
    fn rate(&self, before: u64, now: u64) -> f64 {
        let since = if now < before { now } else { now - before };
        since as f64 / self.0.as_secs_f64()
    }

    fn bytes(&self, before: u64, now: u64) -> String {
        // A rate is far below 2^53, where whole numbers are exact.
        bytes(self.rate(before, now).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::ServiceStats;

    fn sample(uptime_ms: u64, packets: u64) -> Stats {
        let counters = Counters {
            packets,
            bytes: packets * 1024,
            ..Counters::default()
        };
        Stats {
            uptime_ms,
            passed_packets: 0,
            drops: vec![],
            services: vec![ServiceStats {
                name: "web".to_owned(),
                counters,
                drops: vec![],
                backends: vec![BackendStats {
                    name: "web1".to_owned(),
                    counters,
                }],
            }],
        }
    }

    fn cells(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split_whitespace().collect()
    }

    #[test]
    fn rates_are_differences_over_the_daemons_time() {
        let text = rates(&sample(1_000, 100), &sample(3_000, 300));
        let web1 = cells(&text, 2);
        assert_eq!(
            web1,
            [
                "web", "web1", "0", "100", "100.0", "KiB", "0", "0", "B", "300"
            ]
        );
    }

    #[test]
    fn a_backend_that_has_gone_takes_no_traffic_along() {
        let mut before = sample(1_000, 100);
        let service = &mut before.services[0];
        let gone = BackendStats {
            name: "web2".to_owned(),
            ..service.backends[0].clone()
        };
        service.counters.packets += gone.counters.packets;
        service.backends.push(gone);
        let text = rates(&before, &sample(2_000, 150));
        assert_eq!((cells(&text, 1)[3], cells(&text, 2)[3]), ("50", "50"));
    }

    #[test]
    fn a_counter_or_a_clock_that_went_back_counts_from_zero() {
        let text = rates(&sample(9_000, 500), &sample(1_000, 50));
        assert_eq!(cells(&text, 1)[3], "50");
        let mut new = sample(2_000, 70);
        new.services[0].backends[0].name = "web2".to_owned();
        let text = rates(&sample(1_000, 0), &new);
        assert_eq!(cells(&text, 2)[1..4], ["web2", "0", "70"]);
    }
}
