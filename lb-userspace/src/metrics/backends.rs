//! Backends: what is decided about them, and what they get.

use super::families::{Families, Values};
use crate::engine::snapshot::{BackendState, ServiceState, Snapshot};
use crate::model::{AdminState, Fit, Health};

/// A figure of a backend.
pub(super) type Figure = fn(&ServiceState, &BackendState) -> f64;

pub(super) fn backends(snapshot: &Snapshot, families: &mut Families) {
    let gauges: [(&str, &str, Figure); 6] = [
        (
            "lbd_backend_up",
            "Whether it answers; 1 also while nobody knows",
            |_, one| f64::from(one.backend.health != Health::Down),
        ),
        (
            "lbd_backend_ready",
            "Whether operator and agent have it in service",
            |_, one| f64::from(one.backend.standing() == AdminState::Ready),
        ),
        (
            "lbd_backend_fit",
            "Whether it has the role that its service is for",
            |_, one| f64::from(one.backend.fit == Fit::Fit),
        ),
        (
            "lbd_backend_eligible",
            "Whether it may get new flows",
            |state, one| f64::from(state.service.is_eligible(&one.backend)),
        ),
        ("lbd_backend_weight", "Its weight", |_, one| {
            f64::from(one.backend.effective_weight())
        }),
        (
            "lbd_backend_ring_slots",
            "Slots of the ring that it holds",
            |_, one| f64::from(one.slots),
        ),
    ];
    let counters: [(&str, &str, Figure); 8] = [
        (
            "lbd_backend_packets_total",
            "Packets steered to it",
            |_, one| one.stats.packets as f64,
        ),
        (
            "lbd_backend_bytes_total",
            "Bytes of those packets, from the Ethernet header on",
            |_, one| one.stats.bytes as f64,
        ),
        (
            "lbd_backend_new_flows_total",
            "New flows: SYNs for TCP",
            |_, one| one.stats.new_flows as f64,
        ),
        (
            "lbd_backend_reply_packets_total",
            "Replies rewritten on their way back; NAT only",
            |_, one| one.stats.reply_packets as f64,
        ),
        (
            "lbd_backend_reply_bytes_total",
            "Bytes of those replies",
            |_, one| one.stats.reply_bytes as f64,
        ),
        (
            "lbd_backend_repeated_syns_total",
            "SYNs that were sent once more: it has not answered, or its answer was lost",
            |_, one| one.signals.repeated_syns as f64,
        ),
        (
            "lbd_backend_client_resets_total",
            "RSTs of its clients",
            |_, one| one.signals.client_resets as f64,
        ),
        (
            "lbd_backend_resets_total",
            "RSTs that it has sent; NAT only",
            |_, one| one.signals.backend_resets as f64,
        ),
    ];
    for (name, help, figure) in gauges {
        each_backend(snapshot, families.gauge(name, help), figure);
    }
    for (name, help, figure) in counters {
        each_backend(snapshot, families.counter(name, help), figure);
    }
}

fn each_backend(snapshot: &Snapshot, mut values: Values<'_>, figure: Figure) {
    for state in &snapshot.services {
        for one in &state.backends {
            let labels = [
                ("service", state.service.name.as_str()),
                ("backend", one.backend.name.as_str()),
            ];
            values.put(&labels, figure(state, one));
        }
    }
}
