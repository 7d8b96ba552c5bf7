//! What is measured, under which names.

use lb_common::drop_reason::DropReason;

use super::Source;
use super::families::Families;
use super::{backends, checks, daemon, flows, haproxy, pair};
use crate::engine::snapshot::Snapshot;
use crate::model::Keyword as _;

/// Everything, as text.
///
/// # Errors
/// The engine has stopped.
pub(super) async fn collect(source: &Source) -> anyhow::Result<String> {
    let snapshot = source.engine.snapshot().await?;
    let on_record = flows::on_record(&source.engine, &snapshot).await?;
    let mut families = Families::default();
    node(&snapshot, &mut families);
    services(&snapshot, &mut families);
    flows::rings(&snapshot, &mut families);
    flows::flows(&on_record, &mut families);
    backends::backends(&snapshot, &mut families);
    let now_ms = source.monitor.health.now().monotonic_ms;
    let board = source.monitor.health.board();
    checks::checks(&board, now_ms, &mut families);
    if source.has_haproxy_names {
        haproxy::haproxy(&snapshot, &mut families);
        haproxy::durations(&board, &mut families);
    }
    checks::reactions(&board, &mut families);
    drop(board);
    daemon::daemon(&source.monitor, &mut families);
    pair::vips(&source.monitor.vrrp, &mut families);
    if snapshot.cluster.is_some() {
        pair::peers(&source.monitor.peers.view(), &mut families);
    }
    families.encode()
}

fn node(snapshot: &Snapshot, families: &mut Families) {
    let version = env!("LB_VERSION");
    let labels = [("version", version), ("node", snapshot.node.as_str())];
    families
        .gauge("lbd_build_info", "Always 1; the version is in the label")
        .put(&labels, 1.0);
    families
        .gauge("lbd_uptime_seconds", "Time since lbd began")
        .put(&[], snapshot.uptime.as_secs_f64());
    let age_s = snapshot.datapath.heartbeat_age.as_secs_f64();
    families
        .gauge(
            "lbd_datapath_heartbeat_age_seconds",
            "Time since lbd noted that it looks after the datapath",
        )
        .put(&[], age_s);
    let mut attached = families.gauge("lbd_interface_attached", "Whether the datapath is attached");
    for state in &snapshot.interfaces {
        let labels = [
            ("interface", state.interface.name.as_str()),
            ("mode", state.attached.unwrap_or("none")),
        ];
        attached.put(&labels, f64::from(state.attached.is_some()));
    }
    let mut used = families.gauge("lbd_map_entries", "Entries of a map of the datapath in use");
    for map in &snapshot.maps {
        if let Some(count) = map.used {
            used.count(&[("map", map.map)], count.into());
        }
    }
    let mut capacity = families.gauge(
        "lbd_map_capacity",
        "Entries that a map of the datapath holds",
    );
    for map in &snapshot.maps {
        capacity.count(&[("map", map.map)], map.max.into());
    }
    let help = "Packets that were for no service, and went to the host";
    families
        .counter("lbd_passed_packets_total", help)
        .count(&[], snapshot.passed_packets);
    let mut drops = families.counter("lbd_drops_total", "Packets that were dropped, by reason");
    let mut put = |service: &str, (reason, count): &(DropReason, u64)| {
        drops.count(&[("service", service), ("reason", reason.label())], *count);
    };
    for one in &snapshot.drops {
        put("", one);
    }
    for state in &snapshot.services {
        for one in &state.drops {
            put(&state.service.name, one);
        }
    }
}

fn services(snapshot: &Snapshot, families: &mut Families) {
    let mut info = families.gauge(
        "lbd_service_info",
        "Always 1; the service's endpoint is in the labels",
    );
    for state in &snapshot.services {
        let service = &state.service;
        let labels = [
            ("service", service.name.as_str()),
            ("vip", &service.vip.to_string()),
            ("port", &service.port.to_string()),
            ("protocol", service.protocol.word()),
            ("scheduler", service.scheduler.word()),
            ("forward", service.forward.word()),
        ];
        info.put(&labels, 1.0);
    }
    let mut slots = families.gauge("lbd_service_ring_slots", "Slots of the ring in force");
    for state in &snapshot.services {
        slots.count(&[("service", &state.service.name)], state.ring_len.into());
    }
    let mut eligible = families.gauge(
        "lbd_service_eligible_backends",
        "Backends that may get new flows",
    );
    for state in &snapshot.services {
        let count = state.service.eligible().count();
        eligible.count(&[("service", &state.service.name)], count as u64);
    }
}
