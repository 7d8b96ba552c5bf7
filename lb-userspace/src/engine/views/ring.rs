//! A ring as it is, in figures.

use std::collections::BTreeMap;

use lb_common::abi::Slot;

use crate::model::{Scheduler, Service};
use crate::transition::Phase;

/// A backend's part of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingShare {
    /// Its name.
    pub backend: String,
    /// Slots that send new flows there.
    pub current_count: u32,
    /// Slots in transition that send flows which are not on record there.
    pub previous_count: u32,
    /// Whether it gets new flows: ready, not down, of the active group.
    pub is_eligible: bool,
    /// Whether it is in the model no more, and stays until its flows have ended.
    pub is_leaving: bool,
}

/// A service's ring as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingView {
    /// The service's name.
    pub service: String,
    /// How it is filled.
    pub scheduler: Scheduler,
    /// Slots; 0 = no backend.
    pub slot_count: u32,
    /// Slots that touch no state.
    pub settled_count: u32,
    /// Slots in preparation of a change.
    pub armed_count: u32,
    /// Slots that have changed, and what is not on record goes where it went before.
    pub moving_count: u32,
    /// Slots with flows of other backends on record.
    pub quiet_count: u32,
    /// How long ago the oldest slot in transition got into its phase; `None` if there is none. Unit:
    /// seconds.
    pub since_s: Option<u64>,
    /// By backend.
    pub shares: Vec<RingShare>,
}

/// The backends of a service by id, those that are leaving too.
pub type Holders = BTreeMap<u16, Holder>;

/// A backend that a slot may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Whether it gets new flows: ready, not down, of the active group.
    pub is_eligible: bool,
    /// Whether it is in the model no more.
    pub is_leaving: bool,
}

/// The figures of a service's ring.
pub fn view(
    service: &Service,
    slots: &[Slot],
    holders: &Holders,
    since_s: Option<u64>,
) -> RingView {
    let mut shares: BTreeMap<u16, (u32, u32)> = holders.keys().map(|id| (*id, (0, 0))).collect();
    let mut phases: BTreeMap<u8, u32> = BTreeMap::new();
    for slot in slots {
        *phases.entry(rank(Phase::of(*slot))).or_default() += 1;
        shares.entry(slot.current()).or_default().0 += 1;
        if slot.previous() != 0 {
            shares.entry(slot.previous()).or_default().1 += 1;
        }
    }
    let phase_count = |phase| phases.get(&rank(phase)).copied().unwrap_or(0);
    let shares = shares.into_iter().filter(|(id, _)| *id != 0);
    let mut shares: Vec<RingShare> = shares
        .map(|(id, counts)| share(id, counts, holders.get(&id)))
        .collect();
    shares.sort_by(|one, other| one.backend.cmp(&other.backend));
    RingView {
        service: service.name.clone(),
        scheduler: service.scheduler,
        slot_count: slots.len() as u32,
        settled_count: phase_count(Phase::Settled),
        armed_count: phase_count(Phase::Armed),
        moving_count: phase_count(Phase::Moving),
        quiet_count: phase_count(Phase::Quiet),
        since_s,
        shares,
    }
}

const fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Settled => 0,
        Phase::Armed => 1,
        Phase::Moving => 2,
        Phase::Quiet => 3,
    }
}

fn share(
    id: u16,
    (current_count, previous_count): (u32, u32),
    holder: Option<&Holder>,
) -> RingShare {
    RingShare {
        // A slot refers to written backends only; one without a name has left the model.
        backend: holder.map_or_else(|| format!("id {id}"), |holder| holder.name.clone()),
        current_count,
        previous_count,
        is_eligible: holder.is_some_and(|holder| holder.is_eligible),
        is_leaving: holder.is_none_or(|holder| holder.is_leaving),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    #[test]
    fn slots_are_counted_by_phase_and_by_backend() {
        let overrides = Overrides {
            interfaces: vec![],
            node: "lb1".to_owned(),
        };
        let text = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n";
        let model = parse("lbd.toml", text, &overrides).unwrap().model;
        let holder = |name: &str, is_eligible, is_leaving| Holder {
            name: name.to_owned(),
            is_eligible,
            is_leaving,
        };
        let holders = [
            (1, holder("web1", true, false)),
            (2, holder("10.0.0.12", false, true)),
            (3, holder("web3", false, false)),
        ]
        .into();
        let slots = [
            Slot::settled(1),
            Slot::settled(1),
            Slot::in_transition(1, 1),
            Slot::in_transition(1, 2),
            Slot::in_transition(1, 1).quieted(),
            Slot::in_transition(9, 2),
        ];
        let view = view(&model.services["web"], &slots, &holders, Some(5));
        assert_eq!(
            (
                view.slot_count,
                view.settled_count,
                view.armed_count,
                view.moving_count,
                view.quiet_count
            ),
            (6, 2, 1, 2, 1)
        );
        let shares: Vec<_> = view
            .shares
            .iter()
            .map(|one| {
                (
                    &*one.backend,
                    one.current_count,
                    one.previous_count,
                    one.is_leaving,
                )
            })
            .collect();
        assert_eq!(
            shares,
            [
                ("10.0.0.12", 0, 2, true),
                ("id 9", 1, 0, true),
                ("web1", 5, 2, false),
                ("web3", 0, 0, false),
            ]
        );
    }
}
