//! VIPs and peers as tables for people.

use super::grid::Align::{Left, Right};
use super::grid::{Grid, facts};
use super::health_tables::calendar;
use super::units::duration;
use crate::control::peers::PeerView;
use crate::control::proto::{FailoverDone, LastFailover, Peers, Vips, VirtualRouter};
use crate::events::unix_ms;

const NO_GROUPS: &str = "no VRRP groups; add [[vrrp]] with a name, interface, vrid and vips to the config file, and reload\n";

const NO_PROCESS: &str = "lbd-vrrp has not said anything yet: lbd's log tells why\n";

/// How long `lbctl vip list` notes a claim of somebody else to a VIP. Unit: milliseconds.
const DISPUTE_NOTED_MS: u64 = 600_000;

/// `lbctl vip list`.
pub(super) fn vips(vips: &Vips) -> String {
    if vips.routers.is_empty() {
        return NO_GROUPS.to_owned();
    }
    let mut grid = Grid::new(&[
        ("GROUP", Left),
        ("FAMILY", Left),
        ("VIPS", Left),
        ("STATE", Left),
        ("SINCE", Right),
        ("PRIORITY", Right),
        ("ACTIVE", Left),
        ("NOTES", Left),
    ]);
    for router in &vips.routers {
        grid.row([
            router.group.clone(),
            router.family.clone(),
            router.vips.join(" "),
            router.state.clone(),
            since(router),
            priority(router),
            active(router),
            notes(router),
        ]);
    }
    grid.draw() + &process(vips)
}

/// `lbctl vip list --wide`.
pub(super) fn vips_wide(vips: &Vips) -> String {
    if vips.routers.is_empty() {
        return NO_GROUPS.to_owned();
    }
    let mut grid = Grid::new(&[
        ("GROUP", Left),
        ("FAMILY", Left),
        ("INTERFACE", Left),
        ("VRID", Right),
        ("VIPS", Left),
        ("STATE", Left),
        ("SINCE", Right),
        ("PRIORITY", Right),
        ("ACTIVE", Left),
        ("INTERVAL", Right),
        ("TO ACTIVE", Right),
        ("TO BACKUP", Right),
        ("SENT", Right),
        ("RECEIVED", Right),
        ("REFUSED", Right),
        ("FORGED", Right),
        ("CONFLICTS", Right),
        ("BOTH ACTIVE", Right),
        ("DISPUTES", Right),
        ("REASON", Left),
    ]);
    for router in &vips.routers {
        let counters = router.counters;
        let reason = match notes(router) {
            notes if notes.is_empty() => router.reason.clone(),
            notes => format!("{}; {notes}", router.reason),
        };
        grid.row([
            router.group.clone(),
            router.family.clone(),
            router.interface.clone(),
            router.vrid.to_string(),
            router.vips.join(" "),
            router.state.clone(),
            since(router),
            priority(router),
            active(router),
            format!("{} ms", router.interval_ms),
            counters.became_active.to_string(),
            counters.became_backup.to_string(),
            counters.sent.to_string(),
            counters.received.to_string(),
            counters.refused.to_string(),
            counters.unauthentic.to_string(),
            counters.conflicts.to_string(),
            format!("{} ms", counters.dual_active_ms),
            counters.disputes.to_string(),
            reason,
        ]);
    }
    grid.draw() + &process(vips)
}

fn process(vips: &Vips) -> String {
    match &vips.process {
        None => format!("\n{NO_PROCESS}"),
        Some(process) if !process.is_realtime => format!(
            "\nlbd-vrrp (process {}) has no real-time priority: on a busy node it may be late\n",
            process.pid
        ),
        Some(_) => String::new(),
    }
}

fn since(router: &VirtualRouter) -> String {
    router.since_ms.map_or_else(String::new, span)
}

/// A span: in milliseconds below ten seconds, where failovers are told apart.
fn span(milliseconds: u64) -> String {
    match milliseconds {
        ms if ms < 10_000 => format!("{ms} ms"),
        ms => duration(ms / 1_000),
    }
}

/// `150 of 200` where something has lowered it.
fn priority(router: &VirtualRouter) -> String {
    match (router.priority, router.priority_configured) {
        (now, configured) if now == configured => now.to_string(),
        (0, configured) => format!("fault (of {configured})"),
        (now, configured) => format!("{now} of {configured}"),
    }
}

fn active(router: &VirtualRouter) -> String {
    let priority = |text: String| match router.active_priority {
        Some(priority) => format!("{text} ({priority})"),
        None => text,
    };
    match (&router.active_node, &router.active) {
        _ if router.state == "active" => "this node".to_owned(),
        (Some(node), Some(address)) => priority(format!("{node} {address}")),
        (Some(one), None) | (None, Some(one)) => priority(one.clone()),
        (None, None) => "nobody known".to_owned(),
    }
}

fn notes(router: &VirtualRouter) -> String {
    let held = router.held.iter().map(|why| format!("held: {why}"));
    let troubles = router.troubles.iter().cloned();
    let distrusted = router.distrusted.iter().map(|why| format!("alarm: {why}"));
    let notes = held.chain(troubles).chain(distrusted);
    let notes: Vec<String> = notes.chain(dispute(router)).collect();
    notes.join("; ")
}

/// Somebody else's claim to a VIP, while it is fresh.
fn dispute(router: &VirtualRouter) -> Option<String> {
    let dispute = router.dispute.as_ref()?;
    let ago_ms = unix_ms().saturating_sub(dispute.unix_ms);
    let (by, vip) = (&dispute.by, dispute.vip);
    (ago_ms < DISPUTE_NOTED_MS).then(|| format!("{by} claimed {vip} {} ago", span(ago_ms)))
}

/// `lbctl vip failover`.
pub(super) fn failover(done: &FailoverDone) -> String {
    format!(
        "group {}: {}, in {:.1} ms\n",
        done.group, done.text, done.took_ms
    )
}

/// `lbctl peer status`.
pub(super) fn peers(peers: &Peers) -> String {
    let caught_up = |behind: &Option<String>| match behind {
        None => "yes".to_owned(),
        Some(why) => format!("no: {why}"),
    };
    let roles = peers.roles.iter();
    let roles: Vec<String> = roles
        .map(|role| {
            let (group, family, state) = (&role.group, &role.family, &role.state);
            let since = role
                .since_unix_ms
                .map_or_else(String::new, |since_unix_ms| {
                    format!(" for {}", span(unix_ms().saturating_sub(since_unix_ms)))
                });
            format!("{group} {family} {state}{since}")
        })
        .collect();
    let mut text = facts(&[
        ("Node", peers.node.clone()),
        (
            "Version",
            versions(Some(&peers.version), peers.vrrp_version.as_ref()),
        ),
        ("Roles", one_or(roles.join(", "), "no groups")),
        ("Listen", peers.listen.clone()),
        ("Caught up", caught_up(&peers.behind)),
        ("Hash key", one_or(peers.hash_key.clone(), "not yet known")),
        ("Last failover", last_failover(peers.last_failover.as_ref())),
    ]);
    for change in &peers.refused_changes {
        text.push_str(&format!("Not taken over: {change}\n"));
    }
    if peers.peers.is_empty() {
        text.push_str("\nno peers are known yet\n");
    }
    for peer in &peers.peers {
        text.push('\n');
        text.push_str(&facts(&[
            ("Peer", format!("{} at {}", peer.name, peer.address)),
            ("Link", link(peer)),
            (
                "Version",
                versions(peer.version.as_ref(), peer.vrrp_version.as_ref()),
            ),
            ("Roles", one_or(peer_roles(peer), "none heard")),
            ("Heartbeat", heartbeat(peer)),
            ("Flows", flows(peer)),
            (
                "Caught up",
                match peer.is_up {
                    true => caught_up(&peer.behind),
                    false => "not known".to_owned(),
                },
            ),
            ("Refused", one_or(refused(peer), "nothing")),
            ("Drift", drift(peer)),
        ]));
        if peer.drift.len() > 1 {
            for line in &peer.drift {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    text
}

fn one_or(text: String, otherwise: &str) -> String {
    match text.is_empty() {
        true => otherwise.to_owned(),
        false => text,
    }
}

fn versions(lbd: Option<&String>, vrrp: Option<&String>) -> String {
    let version = |one: Option<&String>| one.map_or("not known", String::as_str).to_owned();
    format!("lbd {}, lbd-vrrp {}", version(lbd), version(vrrp))
}

fn last_failover(failover: Option<&LastFailover>) -> String {
    let Some(failover) = failover else {
        return "none since lbd began".to_owned();
    };
    format!(
        "{}  {} {}: {} -> {}: {}",
        calendar(failover.unix_ms),
        failover.group,
        failover.family,
        failover.from,
        failover.to,
        failover.reason
    )
}

fn link(peer: &PeerView) -> String {
    let for_ms = unix_ms().saturating_sub(peer.since_unix_ms);
    let protocol = match &peer.protocol {
        Some(protocol) => format!(", protocol {protocol}"),
        None => String::new(),
    };
    match (peer.is_up, &peer.reason) {
        (true, _) => format!("up for {}{protocol}", span(for_ms)),
        (false, Some(reason)) => format!("down for {}: {reason}", span(for_ms)),
        (false, None) => format!("down for {}", span(for_ms)),
    }
}

fn peer_roles(peer: &PeerView) -> String {
    let roles = peer.routers.iter().map(|router| {
        let family = crate::control::herald::family_word(router.family);
        let state = crate::control::herald::word(router.state);
        let unfit = if router.is_fit { "" } else { " (not fit)" };
        format!(
            "{} {family} {state} priority {}{unfit}",
            router.group, router.priority
        )
    });
    roles.collect::<Vec<_>>().join(", ")
}

fn heartbeat(peer: &PeerView) -> String {
    let age = match peer.heartbeat_age_ms {
        Some(age_ms) => format!("{} ago", span(age_ms)),
        None => "never heard".to_owned(),
    };
    match peer.rtt_us {
        Some(rtt_us) => format!("{age}, there and back in {rtt_us} us"),
        None => age,
    }
}

fn flows(peer: &PeerView) -> String {
    format!(
        "lag {} ms, {} not acknowledged; {} sent, {} received",
        peer.lag_ms, peer.unacked_flows, peer.sent_flows, peer.received_flows
    )
}

fn refused(peer: &PeerView) -> String {
    let refused = peer.refused.iter().filter(|(_, count)| **count > 0);
    let words = refused.map(|(reason, count)| format!("{count} {reason}"));
    words.collect::<Vec<_>>().join(", ")
}

fn drift(peer: &PeerView) -> String {
    match peer.drift.as_slice() {
        [] if peer.is_up => "none".to_owned(),
        [] => "not known".to_owned(),
        [one] => one.clone(),
        many => format!("{} differences", many.len()),
    }
}
