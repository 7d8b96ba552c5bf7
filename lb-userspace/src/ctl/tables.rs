//! Answers as tables for people.

use super::grid::Align::{Left, Right};
use super::grid::{Grid, facts};
use super::health_tables;
use super::units::{bytes, duration, percent, port};
use crate::control::proto::{
    Backend, Backends, Counters, Datapath, Drop, LeavingBackend, NextHop, Service, Services, Stats,
    Status,
};
use crate::model::text::write_duration;

/// `lbctl service list`.
pub(super) fn services(services: &Services) -> String {
    if services.services.is_empty() {
        return "no services; add one: lbctl service add NAME --vip ADDRESS --port PORT\n"
            .to_owned();
    }
    let mut grid = Grid::new(&[
        ("NAME", Left),
        ("VIP", Left),
        ("PORT", Right),
        ("PROTOCOL", Left),
        ("SCHEDULER", Left),
        ("FORWARD", Left),
        ("BACKENDS", Right),
        ("NEW FLOWS", Right),
        ("PACKETS", Right),
        ("BYTES", Right),
        ("DROPS", Right),
    ]);
    for service in &services.services {
        let drops: u64 = service.drops.iter().map(|drop| drop.packets).sum();
        grid.row([
            service.name.clone(),
            service.vip.clone(),
            port(service.port),
            service.protocol.clone(),
            service.scheduler.clone(),
            service.forward.clone(),
            service.backends.len().to_string(),
            service.counters.new_flows.to_string(),
            service.counters.packets.to_string(),
            bytes(service.counters.bytes),
            drops.to_string(),
        ]);
    }
    grid.draw()
}

/// `lbctl service show`.
pub(super) fn service(service: &Service) -> String {
    let ring = match service.ring_len {
        0 => "empty".to_owned(),
        slots => format!("{slots} slots"),
    };
    let vip_interface = service.vip_interface.as_deref();
    let mut text = facts(&[
        ("Service", service.name.clone()),
        (
            "VIP",
            format!(
                "{}, on {}",
                service.vip,
                vip_interface.unwrap_or("no interface of ours")
            ),
        ),
        ("Port", port(service.port)),
        ("Protocol", service.protocol.clone()),
        ("Scheduler", service.scheduler.clone()),
        ("Forward", service.forward.clone()),
        ("Idle time-out", write_duration(service.idle_timeout_s)),
        ("Ring", ring),
    ]);
    text.push_str(&policies(service));
    if service.backends.is_empty() && service.leaving.is_empty() {
        let name = &service.name;
        text.push_str(&format!(
            "\nno backends; add one: lbctl backend add {name} ADDRESS\n"
        ));
    } else {
        text.push('\n');
        text.push_str(&backend_grid(&service.backends, &service.leaving));
    }
    text + &drops(&service.drops)
}

/// What becomes of its flows: on one line, since most services have the defaults.
fn policies(service: &Service) -> String {
    let mut words = Vec::new();
    if let Some(flow) = &service.flow {
        words.push(format!("flow {flow}"));
    }
    if service.slow_start_s > 0 {
        words.push(format!(
            "slow_start {}",
            write_duration(service.slow_start_s)
        ));
    }
    words.push(format!("on_down {}", service.on_down));
    words.push(format!("on_remove {}", service.on_remove));
    words.push(format!("on_all_down {}", service.on_all_down));
    format!("Policies:      {}\n", words.join(", "))
}

/// `lbctl backend list`.
pub(super) fn backends(backends: &Backends) -> String {
    if backends.backends.is_empty() && backends.leaving.is_empty() {
        return "no backends; add one: lbctl backend add SERVICE ADDRESS\n".to_owned();
    }
    backend_grid(&backends.backends, &backends.leaving)
}

fn backend_grid(backends: &[Backend], leaving: &[LeavingBackend]) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("NAME", Left),
        ("ADDRESS", Left),
        ("PORT", Right),
        ("WEIGHT", Right),
        ("SHARE", Right),
        ("ADMIN", Left),
        ("HEALTH", Left),
        ("NEW FLOWS", Right),
        ("PACKETS", Right),
        ("BYTES", Right),
        ("NEXT HOP", Left),
    ]);
    for backend in backends {
        grid.row([
            backend.service.clone(),
            backend.name.clone(),
            backend.address.clone(),
            port(backend.port),
            backend.weight.to_string(),
            percent(backend.share),
            admin(backend),
            health_tables::state(&backend.health, backend.is_fit, &backend.agent),
            backend.counters.new_flows.to_string(),
            backend.counters.packets.to_string(),
            bytes(backend.counters.bytes),
            next_hop(&backend.next_hop),
        ]);
    }
    for one in leaving {
        grid.row([
            one.service.clone(),
            one.name.clone(),
            one.address.clone(),
            port(one.port),
            "-".to_owned(),
            format!("{} slots", one.slots),
            "leaving".to_owned(),
            "-".to_owned(),
            one.counters.new_flows.to_string(),
            one.counters.packets.to_string(),
            bytes(one.counters.bytes),
            "-".to_owned(),
        ]);
    }
    grid.draw()
}

/// The admin state; of a ready backup, whether others come first.
fn admin(backend: &Backend) -> String {
    let is_well = backend.admin == "ready" && backend.health != "down" && backend.is_fit;
    let is_waiting = is_well && !backend.is_eligible;
    match (backend.backup, is_waiting) {
        (0, _) | (_, false) => backend.admin.clone(),
        (_, true) => format!("{} (backup)", backend.admin),
    }
}

/// `lbctl backend show`.
pub(super) fn backend(backend: &Backend) -> String {
    let counters = &backend.counters;
    facts(&[
        (
            "Backend",
            format!("{} of {}", backend.name, backend.service),
        ),
        ("Address", backend.address.clone()),
        ("Port", port(backend.port)),
        ("Weight", backend.weight.to_string()),
        (
            "Backup",
            match backend.backup {
                0 => "no".to_owned(),
                group => format!("group {group}"),
            },
        ),
        ("Admin state", admin(backend)),
        (
            "Health",
            health_tables::state(&backend.health, backend.is_fit, &backend.agent),
        ),
        (
            "Share",
            format!("{}, {} slots", percent(backend.share), backend.slots),
        ),
        ("Next hop", next_hop(&backend.next_hop)),
        ("New flows", counters.new_flows.to_string()),
        (
            "Packets",
            format!("{} ({})", counters.packets, bytes(counters.bytes)),
        ),
        (
            "Replies",
            format!(
                "{} ({})",
                counters.reply_packets,
                bytes(counters.reply_bytes)
            ),
        ),
    ])
}

fn next_hop(next_hop: &NextHop) -> String {
    match (&next_hop.link_address, &next_hop.interface) {
        (Some(address), Some(interface)) => {
            let state = match next_hop.state.as_str() {
                "resolved" => "",
                "last_known" => " (does not answer; last known)",
                _ => " (?)",
            };
            format!("{address} on {interface}{state}")
        }
        _ => {
            let reason = next_hop.reason.as_deref().unwrap_or("no reason given");
            format!("unresolved: {reason}")
        }
    }
}

fn datapath(datapath: &Datapath) -> String {
    let Datapath {
        pinned,
        abi_version,
        origin,
        heartbeat_age_ms,
    } = datapath;
    let heartbeat_s = *heartbeat_age_ms as f64 / 1000.0;
    format!(
        "{origin}, pinned at {pinned} (ABI version {abi_version}, heartbeat {heartbeat_s:.1} s ago)"
    )
}

/// `lbctl status`.
pub(super) fn status(status: &Status) -> String {
    let config = status.config_file.as_deref();
    let mut text = facts(&[
        ("Node", status.node.clone()),
        (
            "Version",
            format!("{} (API {})", status.version, status.api_version),
        ),
        ("Up for", duration(status.uptime_s)),
        ("Config file", config.unwrap_or("none").to_owned()),
        ("Datapath", datapath(&status.datapath)),
        (
            "Services",
            format!(
                "{} with {} backends",
                status.service_count, status.backend_count
            ),
        ),
        (
            "Passed to the host",
            format!("{} packets", status.passed_packets),
        ),
    ]);
    let mut interfaces = Grid::new(&[("INTERFACE", Left), ("INDEX", Right), ("XDP", Left)]);
    for interface in &status.interfaces {
        let reason = interface.reason.as_deref().unwrap_or("unknown reason");
        let xdp = match (interface.attached.as_deref(), interface.xdp.as_str()) {
            (Some("generic"), "auto") => {
                "generic (slow: the driver refused native mode)".to_owned()
            }
            (Some(attached), _) => attached.to_owned(),
            (None, _) => format!("not attached: {reason}"),
        };
        let index = interface
            .ifindex
            .map_or("-".to_owned(), |index| index.to_string());
        interfaces.row([interface.name.clone(), index, xdp]);
    }
    let mut maps = Grid::new(&[
        ("MAP", Left),
        ("USED", Right),
        ("MAX", Right),
        ("SETTING", Left),
    ]);
    for fill in &status.maps {
        let used = fill.used.map_or("-".to_owned(), |used| used.to_string());
        maps.row([
            fill.map.clone(),
            used,
            fill.max.to_string(),
            fill.setting.clone(),
        ]);
    }
    for grid in [interfaces, maps] {
        text.push('\n');
        text.push_str(&grid.draw());
    }
    text + &drops(&status.drops)
}

/// `lbctl stats`: counters since the start.
pub(super) fn stats(stats: &Stats) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("BACKEND", Left),
        ("NEW FLOWS", Right),
        ("PACKETS", Right),
        ("BYTES", Right),
        ("REPLY PACKETS", Right),
        ("REPLY BYTES", Right),
    ]);
    let mut row = |service: &str, backend: &str, counters: &Counters| {
        grid.row([
            service.to_owned(),
            backend.to_owned(),
            counters.new_flows.to_string(),
            counters.packets.to_string(),
            bytes(counters.bytes),
            counters.reply_packets.to_string(),
            bytes(counters.reply_bytes),
        ]);
    };
    for service in &stats.services {
        row(&service.name, ALL_BACKENDS, &service.counters);
        for backend in &service.backends {
            row(&service.name, &backend.name, &backend.counters);
        }
    }
    format!(
        "{}\nup for {}, {} packets passed to the host\n{}",
        grid.draw(),
        duration(stats.uptime_ms / 1000),
        stats.passed_packets,
        all_drops(stats)
    )
}

/// In the backend column of a service's sum.
pub(super) const ALL_BACKENDS: &str = "(all)";

fn drops(drops: &[Drop]) -> String {
    if drops.is_empty() {
        return String::new();
    }
    let mut grid = Grid::new(&[("DROPPED", Right), ("REASON", Left), ("MEANING", Left)]);
    for drop in drops {
        grid.row([
            drop.packets.to_string(),
            drop.reason.clone(),
            drop.help.clone(),
        ]);
    }
    format!("\n{}", grid.draw())
}

/// The drops of every service, and of none.
pub(super) fn all_drops(stats: &Stats) -> String {
    let services = stats.services.iter();
    let of_services =
        services.flat_map(|service| service.drops.iter().map(|d| (&*service.name, d)));
    let of_none = stats.drops.iter().map(|drop| ("-", drop));
    let mut rows = of_services.chain(of_none).peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("DROPPED", Right),
        ("REASON", Left),
        ("MEANING", Left),
    ]);
    for (service, drop) in rows {
        grid.row([
            service.to_owned(),
            drop.packets.to_string(),
            drop.reason.clone(),
            drop.help.clone(),
        ]);
    }
    format!("\n{}", grid.draw())
}
