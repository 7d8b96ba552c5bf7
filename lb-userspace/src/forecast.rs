//! What a change would do, before it is made: slots that move, flows that are concerned, flows that would
//! break. Pure.

mod breakage;
mod pace;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::diff::differences;
use crate::model::text::write_duration;
use crate::model::{Model, Protocol, Scheduler, Service, Urgency};

pub use breakage::Breakage;
pub use ring::{Endpoint, Present, SlotMove};

/// What a change would do to one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceForecast {
    /// Its name.
    pub service: String,
    /// Slots of its ring afterwards; 0 = no backend.
    pub slot_count: u32,
    /// Slots that get another backend; `None` = flows do not follow slots (round robin), or the service
    /// comes or goes.
    pub moved_count: Option<u32>,
    /// Slots by backend, before and after.
    pub moves: Vec<SlotMove>,
    /// Flows on record in slots that move: they stay where they are.
    pub affected_count: u64,
    /// What would break; empty = nothing.
    pub breakages: Vec<Breakage>,
    /// How it would go, in words.
    pub notes: Vec<String>,
}

/// What a change would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// What of the config is different, in words.
    pub differences: Vec<String>,
    /// The services that would change, by name.
    pub services: Vec<ServiceForecast>,
}

/// What the step from one model to another does. `present` is what is known of a service that is there
/// before.
pub fn forecast(
    before: &Model,
    after: &Model,
    urgency: Urgency,
    present: impl Fn(&Service) -> Present,
) -> Forecast {
    let services = pairs(before, after)
        .into_iter()
        .filter_map(|pair| match pair {
            (Some(before), Some(after)) if before == after => None,
            (Some(before), after) => Some(of_service(before, after, urgency, &present(before))),
            (None, after) => after.map(of_newcomer),
        });
    let differences = differences(&before.services, &after.services);
    Forecast {
        differences: differences.iter().map(ToString::to_string).collect(),
        services: services.collect(),
    }
}

/// The services before and after that are the same one: those of one endpoint, else those of one name.
fn pairs<'m>(
    before: &'m Model,
    after: &'m Model,
) -> Vec<(Option<&'m Service>, Option<&'m Service>)> {
    type Key = (IpAddr, u16, Protocol);
    let key = |one: &Service| -> Key { (one.vip, one.port, one.protocol) };
    let mut newcomers: BTreeMap<Key, &Service> = after
        .services
        .values()
        .map(|service| (key(service), service))
        .collect();
    let mut matched: Vec<(&Service, Option<&Service>)> = before
        .services
        .values()
        .map(|service| (service, newcomers.remove(&key(service))))
        .collect();
    for (service, found) in &mut matched {
        if found.is_none() {
            let namesake = after.services.get(&service.name);
            *found = namesake.and_then(|namesake| newcomers.remove(&key(namesake)));
        }
    }
    let known = matched
        .into_iter()
        .map(|(before, after)| (Some(before), after));
    let new = newcomers.into_values().map(|service| (None, Some(service)));
    known.chain(new).collect()
}

/// A service that comes.
fn of_newcomer(service: &Service) -> ServiceForecast {
    let slots = ring::wanted(service, &BTreeMap::new()).unwrap_or_default();
    let ids = ring::ids(service, &BTreeMap::new());
    ServiceForecast {
        service: service.name.clone(),
        slot_count: slots.len() as u32,
        moved_count: None,
        moves: ring::moves(&[], &slots, &ring::names(None, Some(service), &ids)),
        affected_count: 0,
        breakages: Vec::new(),
        notes: vec!["it is new and has no flow yet".to_owned()],
    }
}

/// A service that changes or goes.
fn of_service(
    before: &Service,
    after: Option<&Service>,
    urgency: Urgency,
    present: &Present,
) -> ServiceForecast {
    let ids = after.map_or_else(
        || present.ids.clone(),
        |after| ring::ids(after, &present.ids),
    );
    // Without anybody to give a slot to, all stay as they are.
    let slots = match after {
        Some(after) => ring::wanted(after, &ids).unwrap_or_else(|| present.ring.clone()),
        None => Vec::new(),
    };
    let moved = ring::moved(&present.ring, &slots);
    let follows_slots =
        after.is_some_and(|after| !is_round_robin(before) && !is_round_robin(after));
    let moved_count = follows_slots.then_some(moved.len() as u32);
    let on_slot = |slot: &usize| u64::from(present.flows_by_slot.get(*slot).copied().unwrap_or(0));
    let moves = moved_count.unwrap_or(0) > 0;
    let names = ring::names(Some(before), after, &ids);
    let losers = ring::losers(&present.ring, &slots, &names, &ids);
    ServiceForecast {
        service: before.name.clone(),
        slot_count: slots.len() as u32,
        moved_count,
        moves: ring::moves(&present.ring, &slots, &names),
        affected_count: match follows_slots {
            true => moved.iter().map(on_slot).sum(),
            false => 0,
        },
        breakages: breakage::breakages(before, after, present, moves),
        notes: after.map_or_else(Vec::new, |after| {
            let mut notes = pace::notes(before, after, urgency, &losers);
            notes.extend(caveats(before, after, moves));
            notes
        }),
    }
}

fn is_round_robin(service: &Service) -> bool {
    service.scheduler == Scheduler::RoundRobin
}

/// What else is worth knowing.
fn caveats(before: &Service, after: &Service, moves: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if after.idle_timeout_s < before.idle_timeout_s {
        notes.push(format!(
            "flows that are silent for longer than {} may be forgotten, which they are not today",
            write_duration(after.idle_timeout_s)
        ));
    }
    if after.policies.slow_start_s > 0 && moves {
        notes.push(format!(
            "a backend that comes back gets its weight in the course of {}: these are the slots at the \
             end",
            write_duration(after.policies.slow_start_s)
        ));
    }
    notes
}
