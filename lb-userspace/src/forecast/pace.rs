//! How soon new flows follow a change, in words.

use std::collections::BTreeSet;

use lb_common::limits::PREPARE_MS;

use super::ring::Endpoint;
use crate::model::text::write_duration;
use crate::model::{AdminState, Backend, Health, OnRemove, Service, Urgency};

/// Who loses slots: the name, and what makes it the same backend; `None` = nobody had them.
pub(super) type Loser = (String, Option<Endpoint>);

/// How soon the slots move that `losers` lose. `urgency` is that of the change.
pub(super) fn notes(
    before: &Service,
    after: &Service,
    urgency: Urgency,
    losers: &BTreeSet<Loser>,
) -> Vec<String> {
    if losers.is_empty() {
        return Vec::new();
    }
    if after.tracks_flows() {
        return vec!["new flows follow at once; those that are on record stay".to_owned()];
    }
    if !after.has_transitions() {
        return Vec::new();
    }
    let is_at_once = |(_, endpoint): &&Loser| {
        endpoint.is_none_or(|endpoint| is_urgent(before, after, urgency, endpoint))
    };
    let (at_once, prepared): (Vec<_>, Vec<_>) = losers.iter().partition(is_at_once);
    let settle = format!(
        "the slots settle when they have been left alone for the idle time-out ({})",
        write_duration(after.idle_timeout_s)
    );
    let follow = format!(
        "new flows follow after {:.1} s",
        PREPARE_MS as f64 / 1_000.0
    );
    let names: Vec<&str> = at_once.iter().map(|(name, _)| name.as_str()).collect();
    let leave = format!(
        "new flows leave {} at once, and handshakes under way may fail",
        names.join(", ")
    );
    match (at_once.is_empty(), prepared.is_empty()) {
        (true, _) => vec![format!("{follow}; {settle}")],
        (false, true) => vec![format!("{leave}; {settle}")],
        (false, false) => vec![leave, format!("in other slots, {follow}; {settle}")],
    }
}

/// Whether slots are taken from a backend without preparation: handshakes with it would not complete, or
/// the operator does not want to wait for them.
fn is_urgent(before: &Service, after: &Service, urgency: Urgency, endpoint: Endpoint) -> bool {
    let ends_flows = after.policies.on_remove != OnRemove::Keep;
    let is_it = |one: &&Backend| (one.address, one.port) == endpoint;
    let Some(then) = after.backends.values().find(is_it) else {
        return ends_flows;
    };
    let now = before.backends.values().find(is_it);
    let is_taken_out = now.is_some_and(|now| now.admin != then.admin);
    then.health == Health::Down
        || then.standing() == AdminState::Maint && ends_flows
        || urgency == Urgency::Immediate && is_taken_out
}
