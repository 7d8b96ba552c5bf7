//! The content of the maps as plain data, and the writes that change it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lb_common::abi::{
    Address, Backend, EndpointKey, NatReply, Neighbour, NeighbourKey, Route, RouteKey, Service,
    Vip, map_name,
};

/// The content of every map that the control plane writes, except the rings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapState {
    /// `SERVICES`.
    pub services: BTreeMap<EndpointKey, Service>,
    /// `VIPS`.
    pub vips: BTreeMap<Address, Vip>,
    /// `BACKENDS`, without free entries.
    pub backends: BTreeMap<u16, Backend>,
    /// `NAT_REPLIES`.
    pub nat_replies: BTreeMap<EndpointKey, NatReply>,
    /// `ROUTES`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// `NEIGHBOURS`.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
}

impl MapState {
    /// What a successful write makes of the maps.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(entry) => self.put(entry),
            Write::Delete(key) => self.delete(key),
            Write::Ring { .. }
            | Write::ZeroBackendStats(_)
            | Write::ZeroServiceCounters(_)
            | Write::WaitForReaders => {}
        }
    }

    fn put(&mut self, entry: &Entry) {
        match *entry {
            Entry::Service(key, value) => drop(self.services.insert(key, value)),
            Entry::Vip(key, value) => drop(self.vips.insert(key, value)),
            Entry::Backend(key, value) => drop(self.backends.insert(key, value)),
            Entry::NatReply(key, value) => drop(self.nat_replies.insert(key, value)),
            Entry::Route(key, value) => drop(self.routes.insert(key, value)),
            Entry::Neighbour(key, value) => drop(self.neighbours.insert(key, value)),
        }
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Service(key) => drop(self.services.remove(key)),
            Key::Vip(key) => drop(self.vips.remove(key)),
            Key::Backend(key) => drop(self.backends.remove(key)),
            Key::NatReply(key) => drop(self.nat_replies.remove(key)),
            Key::Route(key) => drop(self.routes.remove(key)),
            Key::Neighbour(key) => drop(self.neighbours.remove(key)),
        }
    }
}

/// One write to the datapath's memory. Each is idempotent.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Writes a map entry, whole.
    Put(Entry),
    /// Removes a map entry; fine if it is not there.
    Delete(Key),
    /// Writes a ring into blocks that no packet reads.
    Ring {
        /// The first block.
        block: u32,
        /// The slots.
        slots: Arc<[u32]>,
    },
    /// Zeroes the counters of a backend id, before it is handed out.
    ZeroBackendStats(u16),
    /// Zeroes the counters of a service id, before it is handed out.
    ZeroServiceCounters(u16),
    /// Waits until no packet is being processed that began before: nothing reads any more what the
    /// writes before this one took out of use.
    WaitForReaders,
}

impl Write {
    /// The map that it goes to, for messages.
    pub fn map(&self) -> &'static str {
        match self {
            Self::Put(entry) => entry.key().map(),
            Self::Delete(key) => key.map(),
            Self::Ring { .. } | Self::WaitForReaders => map_name::RINGS,
            Self::ZeroBackendStats(_) => map_name::BACKEND_STATS,
            Self::ZeroServiceCounters(_) => map_name::COUNTERS,
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(entry) => write!(f, "write {}", entry.key()),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Ring { block, slots } => {
                write!(f, "write {} slots at block {block}", slots.len())
            }
            Self::ZeroBackendStats(id) => write!(f, "zero the counters of backend id {id}"),
            Self::ZeroServiceCounters(id) => write!(f, "zero the counters of service id {id}"),
            Self::WaitForReaders => write!(f, "wait for packets under way"),
        }
    }
}

/// An entry of one of the keyed maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In `SERVICES`.
    Service(EndpointKey, Service),
    /// In `VIPS`.
    Vip(Address, Vip),
    /// In `BACKENDS`.
    Backend(u16, Backend),
    /// In `NAT_REPLIES`.
    NatReply(EndpointKey, NatReply),
    /// In `ROUTES`.
    Route(RouteKey, Route),
    /// In `NEIGHBOURS`.
    Neighbour(NeighbourKey, Neighbour),
}

impl Entry {
    /// Where it stands.
    pub const fn key(&self) -> Key {
        match *self {
            Self::Service(key, _) => Key::Service(key),
            Self::Vip(key, _) => Key::Vip(key),
            Self::Backend(key, _) => Key::Backend(key),
            Self::NatReply(key, _) => Key::NatReply(key),
            Self::Route(key, _) => Key::Route(key),
            Self::Neighbour(key, _) => Key::Neighbour(key),
        }
    }
}

/// The place of an entry in one of the keyed maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// In `SERVICES`.
    Service(EndpointKey),
    /// In `VIPS`.
    Vip(Address),
    /// In `BACKENDS`.
    Backend(u16),
    /// In `NAT_REPLIES`.
    NatReply(EndpointKey),
    /// In `ROUTES`.
    Route(RouteKey),
    /// In `NEIGHBOURS`.
    Neighbour(NeighbourKey),
}

impl Key {
    /// The map's name.
    pub const fn map(&self) -> &'static str {
        match self {
            Self::Service(_) => map_name::SERVICES,
            Self::Vip(_) => map_name::VIPS,
            Self::Backend(_) => map_name::BACKENDS,
            Self::NatReply(_) => map_name::NAT_REPLIES,
            Self::Route(_) => map_name::ROUTES,
            Self::Neighbour(_) => map_name::NEIGHBOURS,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) | Self::NatReply(key) => write!(
                f,
                "{} port {} protocol {}",
                key.address,
                u16::from_be(key.port_be),
                key.protocol
            ),
            Self::Vip(address) => write!(f, "{address}"),
            Self::Backend(id) => write!(f, "backend id {id}"),
            Self::Route(key) => {
                let address = Address(bytemuck::cast(key.octets));
                write!(f, "{address} ({} bits)", key.prefix_len)
            }
            Self::Neighbour(key) => write!(f, "{} on interface {}", key.address, key.ifindex),
        }
    }
}
