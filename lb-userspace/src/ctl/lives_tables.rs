//! Backends' lives, flows and rings for people.

use super::args::BackendName;
use super::grid::Align::{Left, Right};
use super::grid::{Grid, facts};
use super::units::{duration, percent};
use crate::control::proto::{Admin, BackendFlows, FlowCounts, Flows, Ring};

/// All flows on record.
pub(super) const fn total(flows: &FlowCounts) -> u64 {
    flows.half_open + flows.established + flows.closing
}

/// A line of progress.
pub(super) fn left(admin: &Admin) -> String {
    let FlowCounts {
        half_open,
        established,
        closing,
    } = admin.flows;
    let known = format!(
        "{} flows on record ({established} established, {half_open} half open, {closing} closing)",
        total(&admin.flows)
    );
    let new = match admin.slots {
        0 => String::new(),
        slots => format!("; {slots} slots still send new flows there"),
    };
    match admin.certain_in_s {
        None => known,
        // The time begins when the last slot moves.
        Some(_) if admin.slots > 0 => known + &new,
        Some(certain_in_s) => format!(
            "{known}; silent ones may be unknown for {} more",
            duration(certain_in_s)
        ),
    }
}

/// What the wait for a drained backend has found in the end.
pub(super) fn drained(backend: &BackendName, admin: &Admin) -> String {
    let BackendName { service, backend } = backend;
    if admin.is_empty {
        return format!("backend {backend} of {service}: no flow is left\n");
    }
    format!("backend {backend} of {service}: {}\n", left(admin))
}

/// `lbctl flow list`.
pub(super) fn flows(flows: &Flows) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("BACKEND", Left),
        ("CLIENT", Left),
        ("CLIENT PORT", Right),
        ("PORT", Right),
        ("STATE", Left),
        ("IDLE", Right),
        ("EXPIRES IN", Right),
    ]);
    for flow in &flows.flows {
        let idle = flow
            .idle_s
            .map_or("-".to_owned(), |s| duration(u64::from(s)));
        grid.row([
            flow.service.clone(),
            flow.backend.clone(),
            flow.client.clone(),
            flow.client_port.to_string(),
            flow.port.to_string(),
            flow.state.clone(),
            idle,
            duration(u64::from(flow.expires_s)),
        ]);
    }
    let all: u64 = flows.counts.iter().map(|one| total(&one.flows)).sum();
    let shown = flows.flows.len() as u64;
    let mut text = match shown {
        0 => String::new(),
        _ => grid.draw(),
    };
    text.push_str(&match all.saturating_sub(shown) {
        0 => format!("{all} flows on record\n"),
        more => format!("{all} flows on record, {more} of them not listed: raise --limit\n"),
    });
    text + &incomplete(&flows.counts)
}

/// `lbctl flow count`.
pub(super) fn flow_counts(flows: &Flows) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("BACKEND", Left),
        ("ESTABLISHED", Right),
        ("HALF OPEN", Right),
        ("CLOSING", Right),
        ("TOTAL", Right),
    ]);
    for one in &flows.counts {
        grid.row([
            one.service.clone(),
            one.backend.clone(),
            one.flows.established.to_string(),
            one.flows.half_open.to_string(),
            one.flows.closing.to_string(),
            total(&one.flows).to_string(),
        ]);
    }
    grid.draw() + &incomplete(&flows.counts)
}

/// Whose flows are not all on record.
fn incomplete(counts: &[BackendFlows]) -> String {
    let mut services: Vec<&str> = counts
        .iter()
        .filter(|one| !one.is_complete)
        .map(|one| one.service.as_str())
        .collect();
    services.dedup();
    if services.is_empty() {
        return String::new();
    }
    format!(
        "\n{}: flows in settled slots are on no record, and not counted here\n",
        services.join(", ")
    )
}

/// `lbctl ring show`.
pub(super) fn ring(ring: &Ring) -> String {
    let since = ring.since_s.map_or_else(String::new, |since_s| {
        format!(", the oldest for {}", duration(since_s))
    });
    let in_transition = ring.armed_slots + ring.moving_slots + ring.quiet_slots;
    let mut text = facts(&[
        ("Service", ring.service.clone()),
        ("Scheduler", ring.scheduler.clone()),
        ("Slots", ring.slots.to_string()),
        ("Settled", ring.settled_slots.to_string()),
        (
            "In transition",
            match in_transition {
                0 => "none".to_owned(),
                count => format!(
                    "{count} ({} armed, {} moving, {} quiet){since}",
                    ring.armed_slots, ring.moving_slots, ring.quiet_slots
                ),
            },
        ),
    ]);
    let mut grid = Grid::new(&[
        ("BACKEND", Left),
        ("SLOTS", Right),
        ("SHARE", Right),
        ("FORMER SLOTS", Right),
        ("FORMER SHARE", Right),
        ("STATE", Left),
    ]);
    let share = |slots: u32| match ring.slots {
        0 => percent(0.0),
        all => percent(f64::from(slots) / f64::from(all)),
    };
    for one in &ring.backends {
        let state = match (one.is_leaving, one.is_eligible) {
            (true, _) => "leaving",
            (false, true) => "eligible",
            (false, false) => "not eligible",
        };
        grid.row([
            one.name.clone(),
            one.slots.to_string(),
            share(one.slots),
            one.previous_slots.to_string(),
            share(one.previous_slots),
            state.to_owned(),
        ]);
    }
    text.push('\n');
    text + &grid.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_backend_that_still_gets_flows_is_told() {
        let mut admin = Admin {
            state: "drain".to_owned(),
            slots: 16_381,
            previous_slots: 0,
            flows: FlowCounts {
                established: 3,
                ..FlowCounts::default()
            },
            is_empty: false,
            certain_in_s: Some(900),
        };
        assert_eq!(
            left(&admin),
            "3 flows on record (3 established, 0 half open, 0 closing); 16381 slots still send new \
             flows there"
        );
        admin.slots = 0;
        assert_eq!(
            left(&admin),
            "3 flows on record (3 established, 0 half open, 0 closing); silent ones may be unknown for \
             15m 0s more"
        );
        admin.certain_in_s = None;
        assert_eq!(
            left(&admin),
            "3 flows on record (3 established, 0 half open, 0 closing)"
        );
    }
}
