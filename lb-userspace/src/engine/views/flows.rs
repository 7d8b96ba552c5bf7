//! Flows on record, from the entries of the flow table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::abi::{self, FINGERPRINT_MIN, FlowEntry, FlowOrigin, FlowState};

use crate::transition::sweep::{FlowCounts, slot_of};

/// An entry of the flow table, with what is known of the flow beside it.
pub type TableEntry = (FlowEntry, FlowOrigin);

/// Which flows, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// Of this service alone.
    pub service: Option<String>,
    /// Of backends of this name alone.
    pub backend: Option<String>,
    /// Flows to list at most; all are counted.
    pub limit: usize,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowStage {
    /// Only SYNs were seen, or one datagram.
    HalfOpen,
    /// In use.
    Established,
    /// A FIN or a RST was seen.
    Closing,
}

/// A live flow on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The port of the VIP.
    pub port: u16,
    /// Where it is in its life.
    pub stage: FlowStage,
    /// For how long it has been silent; known of established flows. Unit: seconds.
    pub idle_s: Option<u32>,
    /// When it is forgotten if it stays silent. Unit: seconds.
    pub expires_s: u32,
}

/// The live flows on record of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFlows {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// How many.
    pub counts: FlowCounts,
    /// Whether that is all of its flows: they are all on record.
    pub is_complete: bool,
}

/// The flows that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsView {
    /// At most as many as were asked for, in the order of services, backends and clients.
    pub flows: Vec<FlowView>,
    /// All of them, by service and backend; backends without any included.
    pub counts: Vec<BackendFlows>,
}

/// Whose a record is, by backend id and generation.
pub type Owners = BTreeMap<(u16, u16), FlowOwner>;

/// A backend, as far as its flows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowOwner {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// The service's entry in `SERVICES`.
    pub entry: abi::Service,
}

impl FlowView {
    /// Its place in the list.
    fn place(&self) -> (&str, &str, IpAddr, u16, u16) {
        let (client, client_port) = (self.client, self.client_port);
        (&self.service, &self.backend, client, client_port, self.port)
    }
}

impl FlowQuery {
    fn asks_for(&self, owner: &FlowOwner) -> bool {
        let is_asked =
            |asked: &Option<String>, name: &String| asked.as_ref().is_none_or(|one| one == name);
        is_asked(&self.service, &owner.service) && is_asked(&self.backend, &owner.backend)
    }
}

/// The live flows that a query asks for.
pub fn list(
    query: &FlowQuery,
    owners: &Owners,
    entries: impl IntoIterator<Item = TableEntry>,
    now_s: u32,
) -> FlowsView {
    let asked = owners.iter().filter(|(_, owner)| query.asks_for(owner));
    let mut counts: BTreeMap<(u16, u16), FlowCounts> = asked
        .map(|(key, _)| (*key, FlowCounts::default()))
        .collect();
    let mut flows = Vec::new();
    for (entry, origin) in entries {
        let key = owner_key(&entry);
        let (Some(expires_s), Some(counts)) = (live_for_s(&entry, now_s), counts.get_mut(&key))
        else {
            continue;
        };
        count(counts, entry.record.state());
        if flows.len() < query.limit {
            flows.push(flow_view(&owners[&key], &entry, &origin, expires_s));
        }
    }
    flows.sort_by(|one, other| one.place().cmp(&other.place()));
    let counts = counts.into_iter().map(|(key, counts)| BackendFlows {
        service: owners[&key].service.clone(),
        backend: owners[&key].backend.clone(),
        counts,
        is_complete: owners[&key].entry.tracks_flows == 1,
    });
    FlowsView {
        flows,
        counts: sorted(counts.collect()),
    }
}

fn sorted(mut counts: Vec<BackendFlows>) -> Vec<BackendFlows> {
    counts
        .sort_by(|one, other| (&one.service, &one.backend).cmp(&(&other.service, &other.backend)));
    counts
}

/// Live flows on record of a service, by slot of its ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotFlows {
    /// By service id: a count for each slot.
    pub by_slot: BTreeMap<u16, Vec<u32>>,
    /// By backend id.
    pub by_backend: BTreeMap<u16, FlowCounts>,
}

/// Counts all live flows, by slot and by backend.
pub fn tally(
    owners: &Owners,
    entries: impl IntoIterator<Item = TableEntry>,
    now_s: u32,
) -> SlotFlows {
    let mut tally = SlotFlows::default();
    for (entry, _) in entries {
        let Some(owner) = owners.get(&owner_key(&entry)) else {
            continue;
        };
        if live_for_s(&entry, now_s).is_none() {
            continue;
        }
        let id = entry.record.backend_id();
        count(
            tally.by_backend.entry(id).or_default(),
            entry.record.state(),
        );
        let (service, ring_len) = (&owner.entry, owner.entry.ring_len);
        let slots = tally.by_slot.entry(service.id).or_default();
        slots.resize(ring_len as usize, 0);
        if let Some(slot) = slots.get_mut(slot_of(service, entry.fingerprint, ring_len)) {
            *slot += 1;
        }
    }
    tally
}

fn owner_key(entry: &FlowEntry) -> (u16, u16) {
    let record = entry.record;
    (record.backend_id(), record.backend_generation())
}

/// Seconds until it expires; `None` if there is no live flow in the entry.
fn live_for_s(entry: &FlowEntry, now_s: u32) -> Option<u32> {
    let remaining_s = u32::try_from(entry.record.remaining_s(now_s)).ok()?;
    (entry.fingerprint >= FINGERPRINT_MIN).then_some(remaining_s)
}

const fn stage(state: FlowState) -> FlowStage {
    if state.is_half_open() {
        FlowStage::HalfOpen
    } else if state.is_closing() {
        FlowStage::Closing
    } else {
        FlowStage::Established
    }
}

fn count(counts: &mut FlowCounts, state: FlowState) {
    let count = match stage(state) {
        FlowStage::HalfOpen => &mut counts.half_open_count,
        FlowStage::Established => &mut counts.established_count,
        FlowStage::Closing => &mut counts.closing_count,
    };
    *count += 1;
}

fn flow_view(
    owner: &FlowOwner,
    entry: &FlowEntry,
    origin: &FlowOrigin,
    expires_s: u32,
) -> FlowView {
    let stage = stage(entry.record.state());
    // An established flow is kept for the idle time-out after its last packet.
    let idle_s = owner.entry.idle_timeout_s.checked_sub(expires_s);
    FlowView {
        service: owner.service.clone(),
        backend: owner.backend.clone(),
        client: origin.client.to_ip(),
        client_port: u16::from_be(origin.client_port_be),
        port: u16::from_be(origin.port_be),
        stage,
        idle_s: idle_s.filter(|_| stage == FlowStage::Established),
        expires_s,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use lb_common::abi::{Address, FlowRecord};
    use lb_common::datapath::flow::fingerprint;

    use super::*;

    const NOW_S: u32 = 1_000;

    fn service(id: u16, tracks_flows: u8) -> abi::Service {
        abi::Service {
            id,
            generation: 1,
            ring_len: 101,
            idle_timeout_s: 900,
            tracks_flows,
            ..abi::Service::zeroed()
        }
    }

    fn owners() -> Owners {
        let owner = |service: &str, backend: &str, entry| FlowOwner {
            service: service.to_owned(),
            backend: backend.to_owned(),
            entry,
        };
        [
            ((1, 1), owner("web", "web1", service(1, 0))),
            ((2, 7), owner("web", "web2", service(1, 0))),
            ((3, 1), owner("dns", "dns1", service(2, 1))),
        ]
        .into()
    }

    fn entry(owner: (u16, u16), hash: u64, remaining_s: u32, state: FlowState) -> TableEntry {
        let service = service(if owner.0 == 3 { 2 } else { 1 }, 0);
        let record = FlowRecord::new(owner.0, owner.1, NOW_S + remaining_s, state);
        let origin = FlowOrigin {
            client: Address::from("192.0.2.7".parse::<IpAddr>().unwrap()),
            client_port_be: 4_000_u16.to_be(),
            port_be: 80_u16.to_be(),
            ..FlowOrigin::zeroed()
        };
        let fingerprint = fingerprint(&service, hash);
        (
            FlowEntry {
                fingerprint,
                record,
            },
            origin,
        )
    }

    /// Three flows of web1, one of web2, one of dns1; and three entries that are no flows.
    fn table() -> Vec<TableEntry> {
        let expired = (
            FlowEntry {
                record: FlowRecord::new(1, 1, NOW_S - 1, FlowState::OPEN),
                ..entry((1, 1), 5, 0, FlowState::OPEN).0
            },
            FlowOrigin::zeroed(),
        );
        let free = (FlowEntry::zeroed(), FlowOrigin::zeroed());
        vec![
            entry((1, 1), 1, 890, FlowState::OPEN),
            entry((1, 1), 2, 63, FlowState::HALF_OPEN),
            entry((1, 1), 3, 60, FlowState::FIN),
            free,
            entry((2, 7), 4, 900, FlowState::LEARNED),
            expired,
            entry((2, 6), 6, 900, FlowState::OPEN),
            entry((3, 1), 7, 30, FlowState::OPEN),
        ]
    }

    #[test]
    fn live_flows_are_listed_with_their_clients_and_counted_by_stage() {
        let query = FlowQuery {
            limit: 100,
            ..FlowQuery::default()
        };
        let view = list(&query, &owners(), table(), NOW_S);
        assert_eq!(view.flows.len(), 5);
        let names: Vec<_> = view.flows.iter().map(|flow| &*flow.backend).collect();
        assert_eq!(names, ["dns1", "web1", "web1", "web1", "web2"]);
        assert_eq!(
            view.flows[1],
            FlowView {
                service: "web".to_owned(),
                backend: "web1".to_owned(),
                client: "192.0.2.7".parse().unwrap(),
                client_port: 4_000,
                port: 80,
                stage: FlowStage::Established,
                idle_s: Some(10),
                expires_s: 890,
            }
        );
        let stages: Vec<_> = view.flows.iter().map(|flow| flow.stage).collect();
        assert_eq!(
            stages,
            [
                FlowStage::Established,
                FlowStage::Established,
                FlowStage::HalfOpen,
                FlowStage::Closing,
                FlowStage::Established,
            ]
        );
        assert_eq!(view.flows[2].idle_s, None);
        let counts: Vec<_> = view
            .counts
            .iter()
            .map(|one| (&*one.backend, one.counts.total(), one.is_complete))
            .collect();
        assert_eq!(
            counts,
            [("dns1", 1, true), ("web1", 3, false), ("web2", 1, false)]
        );
    }

    #[test]
    fn a_query_narrows_and_a_limit_does_not_touch_the_counts() {
        let query = |service: Option<&str>, backend: Option<&str>, limit| FlowQuery {
            service: service.map(str::to_owned),
            backend: backend.map(str::to_owned),
            limit,
        };
        let found = |query| {
            let view = list(&query, &owners(), table(), NOW_S);
            let total: u64 = view.counts.iter().map(|one| one.counts.total()).sum();
            (view.flows.len(), total, view.counts.len())
        };
        assert_eq!(found(query(Some("web"), None, 2)), (2, 4, 2));
        assert_eq!(found(query(Some("web"), Some("web2"), 9)), (1, 1, 1));
        assert_eq!(found(query(None, Some("dns1"), 0)), (0, 1, 1));
        assert_eq!(found(query(Some("dns"), Some("web1"), 9)), (0, 0, 0));
    }

    #[test]
    fn flows_are_tallied_in_the_slot_that_their_hash_has() {
        let (first, last) = (1_u64 << 40, u64::MAX);
        let entries = [
            entry((1, 1), first, 900, FlowState::OPEN),
            entry((2, 7), last, 900, FlowState::OPEN),
            entry((2, 7), last - 1, 900, FlowState::HALF_OPEN),
            entry((2, 6), last, 900, FlowState::OPEN),
        ];
        let tally = tally(&owners(), entries, NOW_S);
        let slots = &tally.by_slot[&1];
        assert_eq!((slots.len(), slots[0], slots[100]), (101, 1, 2));
        assert_eq!(tally.by_backend[&2].total(), 2);
    }
}
