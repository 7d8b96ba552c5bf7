//! The sections of the file and their keys.

use std::ops::Range;

use toml::de::DeTable;

use super::reader::Reader;
use super::{checks, cluster};
use crate::model::draft::{
    BackendDraft, Draft, HooksDraft, InterfaceDraft, LimitsDraft, PoliciesDraft, ServiceDraft,
};
use crate::model::{Section, files};

const ROOT: &[&str] = &[
    "node",
    "interface",
    "limits",
    "metrics",
    "hooks",
    "cluster",
    "vrrp",
    "service",
];
const NODE: &[&str] = &["name", "manage_vips", "on_stop"];
const INTERFACE: &[&str] = &["name", "xdp"];
const LIMITS: &[&str] = &["services", "backends", "ring_blocks", "flows"];
const METRICS: &[&str] = &["listen", "haproxy_names"];
const HOOKS: &[&str] = &["on_change", "timeout"];
const SERVICE: &[&str] = &[
    "name",
    "vip",
    "port",
    "protocol",
    "scheduler",
    "forward",
    "idle_timeout",
    "ring_slots",
    "flow",
    "slow_start",
    "on_down",
    "on_remove",
    "on_all_down",
    "check_mode",
    "hold_down",
    "doubt_repeated_syns",
    "doubt_resets",
    "role",
    "max_lag",
    "primary_as_last_resort",
    "check",
    "backend",
];
const BACKEND: &[&str] = &[
    "name", "address", "port", "weight", "backup", "checks", "check",
];

/// Reads the whole file.
pub(super) fn read<'t>(root: &'t DeTable<'t>, reader: &mut Reader) -> Draft {
    reader.report_unknown_keys(root, ROOT);
    let mut draft = Draft::default();
    if let Some(table) = reader.table(root, "node") {
        let node = reader.open(Section::Node, table, NODE);
        draft.node = reader.string(node, "name");
        draft.manage_vips = reader.boolean(node, "manage_vips");
        draft.on_stop = reader.keyword(node);
    }
    for (index, table) in numbered(reader.tables(root, "interface", "[[interface]]")) {
        let interface = reader.open(Section::Interface(index), table, INTERFACE);
        draft.interfaces.push(InterfaceDraft {
            name: reader.string(interface, "name"),
            xdp: reader.keyword(interface),
        });
    }
    if let Some(table) = reader.table(root, "limits") {
        let limits = reader.open(Section::Limits, table, LIMITS);
        draft.limits = read_limits(limits, reader);
    }
    if let Some(table) = reader.table(root, "metrics") {
        let metrics = reader.open(Section::Metrics, table, METRICS);
        draft.metrics.listen = reader.socket_address(metrics, "listen");
        draft.metrics.haproxy_names = reader.boolean(metrics, "haproxy_names");
    }
    if let Some(table) = reader.table(root, "hooks") {
        let hooks = reader.open(Section::Hooks, table, HOOKS);
        draft.hooks = read_hooks(hooks, reader);
    }
    draft.cluster = cluster::read_cluster(root, reader);
    draft.vrrp = cluster::read_vrrp(root, reader);
    for (index, table) in numbered(reader.tables(root, "service", "[[service]]")) {
        let service = reader.open(Section::Service(index), table, SERVICE);
        draft.services.push(read_service(index, service, reader));
    }
    draft
}

type SpannedTable<'t> = (&'t DeTable<'t>, Range<usize>);

fn numbered(tables: Vec<SpannedTable<'_>>) -> impl Iterator<Item = (usize, SpannedTable<'_>)> {
    tables.into_iter().enumerate()
}

fn read_limits(limits: &DeTable<'_>, reader: &mut Reader) -> LimitsDraft {
    LimitsDraft {
        services: reader.integer(limits, "services"),
        backends: reader.integer(limits, "backends"),
        ring_blocks: reader.integer(limits, "ring_blocks"),
        flows: reader.integer(limits, "flows"),
    }
}

fn read_hooks(hooks: &DeTable<'_>, reader: &mut Reader) -> HooksDraft {
    let (key, example) = ("on_change", "\"/usr/local/bin/on-change\"");
    HooksDraft {
        on_change: reader.read(hooks, key, "a program", example, |value| {
            match value.as_str() {
                Some(path) => Some(files::program(key, path).map(|()| vec![path.to_owned()])),
                None => checks::command(key, value),
            }
        }),
        timeout_s: reader.duration_s(hooks, "timeout"),
    }
}

fn read_service<'t>(index: usize, service: &'t DeTable<'t>, reader: &mut Reader) -> ServiceDraft {
    let mut draft = ServiceDraft {
        name: reader.string(service, "name"),
        vip: reader.address(service, "vip"),
        port: reader.integer(service, "port"),
        protocol: reader.keyword(service),
        scheduler: reader.keyword(service),
        forward: reader.keyword(service),
        idle_timeout_s: reader.duration_s(service, "idle_timeout"),
        ring_slots: reader.integer(service, "ring_slots"),
        policies: read_policies(service, reader),
        checks: Vec::new(),
        verdict: checks::read_verdict(service, reader),
        backends: Vec::new(),
    };
    draft.checks = checks::read_list(service, "[[service.check]]", reader, |position| {
        Section::Check(index, position)
    });
    let tables = reader.tables(service, "backend", "[[service.backend]]");
    for (position, table) in numbered(tables) {
        let backend = reader.open(Section::Backend(index, position), table, BACKEND);
        let mut written = read_backend(backend, reader);
        if backend.contains_key("check") {
            let header = "[[service.backend.check]]";
            let own = checks::read_list(backend, header, reader, |check| {
                Section::BackendCheck(index, position, check)
            });
            written.own_checks = Some(own);
        }
        draft.backends.push(written);
    }
    draft
}

fn read_policies(service: &DeTable<'_>, reader: &mut Reader) -> PoliciesDraft {
    PoliciesDraft {
        flow: reader.keyword(service),
        slow_start_s: reader.duration_s(service, "slow_start"),
        on_down: reader.keyword(service),
        on_remove: reader.keyword(service),
        on_all_down: reader.keyword(service),
    }
}

fn read_backend(backend: &DeTable<'_>, reader: &mut Reader) -> BackendDraft {
    BackendDraft {
        name: reader.string(backend, "name"),
        address: reader.address(backend, "address"),
        port: reader.integer(backend, "port"),
        weight: reader.integer(backend, "weight"),
        backup: reader.integer(backend, "backup"),
        checks: reader.keyword(backend),
        ..BackendDraft::default()
    }
}
