//! What is measured, under which names.

use lb_common::drop_reason::DropReason;

use super::Source;
use super::families::Families;
use crate::engine::snapshot::{BackendState, ServiceState, Snapshot};
use crate::health::board::Board;
use crate::model::{AdminState, Fit, Health, Keyword as _};

/// Everything, as text.
///
/// # Errors
/// The engine has stopped.
pub(super) async fn collect(source: &Source) -> anyhow::Result<String> {
    let snapshot = source.engine.snapshot().await?;
    let mut families = Families::default();
    node(&snapshot, &mut families);
    services(&snapshot, &mut families);
    backends(&snapshot, &mut families);
    let now_ms = source.monitor.health.now().monotonic_ms;
    let board = source.monitor.health.board();
    checks(&board, now_ms, &mut families);
    if source.has_haproxy_names {
        haproxy(&snapshot, &mut families);
        haproxy_durations(&board, &mut families);
    }
    reactions(&board, &mut families);
    drop(board);
    events(source, &mut families);
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

/// A figure of a backend.
type Figure = fn(&ServiceState, &BackendState) -> f64;

fn backends(snapshot: &Snapshot, families: &mut Families) {
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
    let counters: [(&str, &str, Figure); 5] = [
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
    ];
    for (name, help, figure) in gauges {
        each_backend(snapshot, families.gauge(name, help), figure);
    }
    for (name, help, figure) in counters {
        each_backend(snapshot, families.counter(name, help), figure);
    }
}

fn each_backend(snapshot: &Snapshot, mut values: super::families::Values<'_>, figure: Figure) {
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

fn checks(board: &Board, now_ms: u64, families: &mut Families) {
    let asked = || {
        board
            .roster()
            .questions
            .iter()
            .flat_map(|(question, seats)| {
                let answers = board.answers(question);
                let words = question.check.to_string();
                seats
                    .iter()
                    .filter_map(move |seat| Some((seat, words.clone(), answers?)))
            })
    };
    let labels = |seat: &crate::health::roster::Seat, check: &str| {
        [
            ("service", seat.service.clone()),
            ("backend", seat.backend.clone()),
            ("check", check.to_owned()),
        ]
    };
    let put = |values: &mut super::families::Values<'_>, seat, check: &str, value: f64| {
        let labels = labels(seat, check);
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, text)| (*key, text.as_str()))
            .collect();
        values.put(&labels, value);
    };
    let mut up = families.gauge("lbd_check_up", "Whether the backend answers this check");
    for (seat, check, answers) in asked() {
        put(
            &mut up,
            seat,
            &check,
            f64::from(answers.state.health() == Health::Up),
        );
    }
    let help = "How long the last answer took";
    let mut duration = families.gauge("lbd_check_duration_seconds", help);
    for (seat, check, answers) in asked() {
        if let Some((outcome, _)) = &answers.last {
            put(&mut duration, seat, &check, outcome.duration.as_secs_f64());
        }
    }
    for (index, name, help) in [
        (
            0,
            "lbd_check_successes_total",
            "Answers that were as they have to be",
        ),
        (
            1,
            "lbd_check_failures_total",
            "Answers that were not, or were none",
        ),
    ] {
        let mut counts = families.counter(name, help);
        for (seat, check, answers) in asked() {
            put(&mut counts, seat, &check, answers.counts[index] as f64);
        }
    }
    let help = "Times that the backend has gone down in the last ten minutes";
    let mut flaps = families.gauge("lbd_check_flaps", help);
    for (seat, check, answers) in asked() {
        put(
            &mut flaps,
            seat,
            &check,
            answers.state.flap_count(now_ms) as f64,
        );
    }
    let help = "Time until the server's certificate expires";
    let mut expiry = families.gauge("lbd_check_certificate_expiry_seconds", help);
    for (seat, check, answers) in asked() {
        let observed = answers.last.as_ref().map(|(outcome, _)| &outcome.observed);
        if let Some(days) = observed.and_then(|observed| observed.certificate_days) {
            put(&mut expiry, seat, &check, days as f64 * 86_400.0);
        }
    }
    let help = "How far a replica is behind";
    let mut lag = families.gauge("lbd_check_replication_lag_seconds", help);
    for (seat, check, answers) in asked() {
        let observed = answers.last.as_ref().map(|(outcome, _)| &outcome.observed);
        if let Some(lag_s) = observed.and_then(|observed| observed.lag_s) {
            put(&mut lag, seat, &check, f64::from(lag_s));
        }
    }
    let mut alarms = families.gauge("lbd_service_alarm", "Whether somebody has to look after it");
    for service in board.roster().services.keys() {
        let is_on = board.alarms().contains_key(service);
        alarms.put(&[("service", service)], f64::from(is_on));
    }
}

/// How soon new flows follow what checks find.
fn reactions(board: &Board, families: &mut Families) {
    let reactions = board.reactions();
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let cumulative = reactions.cumulative();
    families.histogram(
        "lbd_health_in_force_seconds",
        "From the answer to a check that changed a backend's health to the ring in force that follows it",
        cumulative.map(|(bound_ms, count)| (seconds(bound_ms), count)),
        reactions.total_count(),
        seconds(reactions.sum_ms()),
    );
}

fn events(source: &Source, families: &mut Families) {
    let last = source.monitor.events.last();
    families
        .counter(
            "lbd_events_total",
            "Events since lbd began: changes of health, alarms",
        )
        .count(&[], last);
}

/// The names that HAProxy's own exporter has for the same things: `proxy` is the service, `server` the
/// backend.
fn haproxy(snapshot: &Snapshot, families: &mut Families) {
    let mut status = families.gauge(
        "haproxy_backend_status",
        "Whether any backend may get new flows",
    );
    for state in &snapshot.services {
        let is_up = state.service.active_group().is_some();
        for (word, is_so) in [("UP", is_up), ("DOWN", !is_up)] {
            let labels = [("proxy", state.service.name.as_str()), ("state", word)];
            status.put(&labels, f64::from(is_so));
        }
    }
    let mut status = families.gauge("haproxy_server_status", "The state of a backend");
    for state in &snapshot.services {
        for one in &state.backends {
            let now = match (one.backend.standing(), one.backend.health) {
                (AdminState::Maint, _) => "MAINT",
                (_, Health::Down) => "DOWN",
                (AdminState::Drain, _) => "DRAIN",
                (AdminState::Ready, _) => "UP",
            };
            for word in ["DOWN", "UP", "MAINT", "DRAIN"] {
                let labels = [
                    ("proxy", state.service.name.as_str()),
                    ("server", one.backend.name.as_str()),
                    ("state", word),
                ];
                status.put(&labels, f64::from(word == now));
            }
        }
    }
    let counters: [(&str, &str, Figure); 2] = [
        (
            "haproxy_server_sessions_total",
            "New flows of a backend",
            |_, one| one.stats.new_flows as f64,
        ),
        (
            "haproxy_server_bytes_in_total",
            "Bytes steered to a backend",
            |_, one| one.stats.bytes as f64,
        ),
    ];
    for (name, help, figure) in counters {
        let mut values = families.counter(name, help);
        for state in &snapshot.services {
            for one in &state.backends {
                let labels = [
                    ("proxy", state.service.name.as_str()),
                    ("server", one.backend.name.as_str()),
                ];
                values.put(&labels, figure(state, one));
            }
        }
    }
}

/// Of a backend with several checks, the slowest.
fn haproxy_durations(board: &Board, families: &mut Families) {
    let help = "How long the last check of a backend took";
    let mut duration = families.gauge("haproxy_server_check_duration_seconds", help);
    for (service, plan) in &board.roster().services {
        for (backend, questions) in &plan.backends {
            let last = questions.iter().filter_map(|question| {
                let (outcome, _) = board.answers(question)?.last.as_ref()?;
                Some(outcome.duration)
            });
            if let Some(longest) = last.max() {
                let labels = [("proxy", service.as_str()), ("server", backend.as_str())];
                duration.put(&labels, longest.as_secs_f64());
            }
        }
    }
}
