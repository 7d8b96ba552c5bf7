//! Ids of services and backends: stable while the thing lives, not reused soon after.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use lb_common::abi::EndpointKey;

use super::protocol_number;
use crate::maps::MapState;
use crate::model::{Model, Protocol, Service};

/// What makes a service the same service: its VIP endpoint. Its name may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceIdentity {
    vip: IpAddr,
    port: u16,
    protocol: Protocol,
}

impl ServiceIdentity {
    /// The identity of a service of the model.
    pub fn of(service: &Service) -> Self {
        Self {
            vip: service.vip,
            port: service.port,
            protocol: service.protocol,
        }
    }

    /// The identity of a service that was found in the maps; `None` for a protocol that we have no word
    /// for.
    fn of_entry(key: &EndpointKey) -> Option<Self> {
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let protocol = protocols
            .into_iter()
            .find(|protocol| protocol_number(*protocol) == key.protocol)?;
        Some(Self {
            vip: key.address.to_ip(),
            port: u16::from_be(key.port_be),
            protocol,
        })
    }
}

/// What makes a backend the same backend: its service, its address and its port. Its name and
/// weight may change.
pub type BackendIdentity = (ServiceIdentity, IpAddr, u16);

/// An id with the generation that tells it from earlier uses of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The number, from 1.
    pub id: u16,
    /// Goes up each time the number is handed to something else.
    pub generation: u16,
}

/// No id is left: `live` are in use, and the change needs `needed` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfIds {
    /// Ids in use.
    pub live: usize,
    /// New ids that were asked for.
    pub needed: usize,
}

/// Hands out ids 1 to `id_max`.
///
/// A number that became free is handed out again only when no fresh one is left, and then the one
/// that has been free longest: flows that still refer to it have had the longest time to end. What
/// comes back while its number is still free gets it back, with its generation.
#[derive(Clone, Debug)]
pub struct IdAllocator<K> {
    id_max: u16,
    fresh: u16,
    live: BTreeMap<K, Id>,
    retired: VecDeque<(K, Id)>,
    /// Generations of earlier uses of fresh numbers, which an earlier daemon has handed out.
    used: BTreeMap<u16, u16>,
    /// Numbers that were live when an earlier allocator was adopted.
    found: BTreeSet<u16>,
}

impl<K: Ord + Clone> IdAllocator<K> {
    /// An allocator for at most `id_max` live ids.
    pub const fn new(id_max: u16) -> Self {
        Self {
            id_max,
            fresh: 1,
            live: BTreeMap::new(),
            retired: VecDeque::new(),
            used: BTreeMap::new(),
            found: BTreeSet::new(),
        }
    }

    /// An allocator that goes on where an earlier one was: `live` ids stay what they are, and a number
    /// of `used` that is free gets a later generation when it is handed out.
    pub fn adopted(id_max: u16, live: BTreeMap<K, Id>, used: BTreeMap<u16, u16>) -> Self {
        Self {
            found: live.values().map(|id| id.id).collect(),
            live,
            used,
            ..Self::new(id_max)
        }
    }

    /// Makes `keys` the live ones. Ids that become free are not handed out by the same call: the
    /// maps still refer to them.
    ///
    /// # Errors
    /// [`OutOfIds`]; nothing is changed then.
    pub fn assign(&mut self, keys: &BTreeSet<K>) -> Result<(), OutOfIds> {
        let added: Vec<&K> = keys
            .iter()
            .filter(|key| !self.live.contains_key(key))
            .collect();
        let free = usize::from(self.id_max).saturating_sub(self.live.len());
        if added.len() > free {
            return Err(OutOfIds {
                live: self.live.len(),
                needed: added.len(),
            });
        }
        // Those that come back first, so that nobody else is given their number.
        let retired: BTreeSet<&K> = self.retired.iter().map(|(key, _)| key).collect();
        let (returning, unknown): (Vec<&K>, Vec<&K>) =
            added.into_iter().partition(|key| retired.contains(key));
        for key in returning {
            self.revive(key);
        }
        for key in unknown {
            let id = self.hand_out();
            self.live.insert(key.clone(), id);
        }
        self.retire_all_but(keys);
        Ok(())
    }

    fn revive(&mut self, key: &K) {
        if let Some(position) = self.retired.iter().position(|(old, _)| old == key)
            && let Some((key, id)) = self.retired.remove(position)
        {
            self.live.insert(key, id);
        }
    }

    fn hand_out(&mut self) -> Id {
        if let Some(id) = self.next_fresh() {
            let before = self.used.get(&id).copied().unwrap_or(0);
            let generation = before.wrapping_add(1);
            return Id { id, generation };
        }
        let (_, id) = self
            .retired
            .pop_front()
            .expect("assign has checked that an id is free");
        Id {
            id: id.id,
            generation: id.generation.wrapping_add(1),
        }
    }

    /// The next number that neither this allocator nor the one before it has live or retired.
    fn next_fresh(&mut self) -> Option<u16> {
        while self.fresh <= self.id_max {
            let id = self.fresh;
            self.fresh += 1;
            if !self.found.contains(&id) {
                return Some(id);
            }
        }
        None
    }

    fn retire_all_but(&mut self, keys: &BTreeSet<K>) {
        let gone: Vec<K> = self
            .live
            .keys()
            .filter(|key| !keys.contains(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(id) = self.live.remove(&key) {
                self.retired.push_back((key, id));
            }
        }
    }

    /// The id of a live key.
    pub fn get(&self, key: &K) -> Option<Id> {
        self.live.get(key).copied()
    }
}

/// The ids of everything in a model.
#[derive(Clone, Debug)]
pub struct Ids {
    services: IdAllocator<ServiceIdentity>,
    backends: IdAllocator<BackendIdentity>,
}

/// Which ids have run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdShortage {
    /// Those of services.
    Services(OutOfIds),
    /// Those of backends.
    Backends(OutOfIds),
}

impl Ids {
    /// Allocators for at most so many services and backends.
    pub const fn new(services_max: u16, backends_max: u16) -> Self {
        Self {
            services: IdAllocator::new(services_max),
            backends: IdAllocator::new(backends_max),
        }
    }

    /// The ids of what an earlier daemon has written to the maps. `recorded` has the highest generation of
    /// each backend id that flows are on record for.
    ///
    /// An entry of a backend whose service is not there is what a killed daemon has left: nothing refers
    /// to it, and its number is free.
    pub fn adopted(
        services_max: u16,
        backends_max: u16,
        maps: &MapState,
        recorded: &BTreeMap<u16, u16>,
    ) -> Self {
        let mut services = BTreeMap::new();
        let mut backends = BTreeMap::new();
        let mut used = recorded.clone();
        for (key, service) in &maps.services {
            let id = Id {
                id: service.id,
                generation: service.generation,
            };
            services.extend(ServiceIdentity::of_entry(key).map(|identity| (identity, id)));
        }
        let by_id: BTreeMap<u16, &ServiceIdentity> =
            services.iter().map(|(key, id)| (id.id, key)).collect();
        for (id, backend) in &maps.backends {
            let generation = used.entry(*id).or_default();
            *generation = backend.generation.max(*generation);
            let Some(service) = by_id.get(&backend.service_id) else {
                continue;
            };
            let port = match backend.port_be {
                0 => service.port,
                port_be => u16::from_be(port_be),
            };
            let identity = ((*service).clone(), backend.address.to_ip(), port);
            let id = Id {
                id: *id,
                generation: backend.generation,
            };
            backends.insert(identity, id);
        }
        Self {
            services: IdAllocator::adopted(services_max, services, BTreeMap::new()),
            backends: IdAllocator::adopted(backends_max, backends, used),
        }
    }

    /// Gives everything in the model an id and retires the ids of what is no longer there.
    ///
    /// # Errors
    /// [`IdShortage`]; nothing is changed then.
    pub fn assign(&mut self, model: &Model) -> Result<(), IdShortage> {
        let mut services = BTreeSet::new();
        let mut backends = BTreeSet::new();
        for service in model.services.values() {
            let identity = ServiceIdentity::of(service);
            for backend in service.backends.values() {
                backends.insert((identity.clone(), backend.address, backend.port));
            }
            services.insert(identity);
        }
        let services_before = self.services.clone();
        self.services
            .assign(&services)
            .map_err(IdShortage::Services)?;
        self.backends.assign(&backends).map_err(|shortage| {
            self.services = services_before;
            IdShortage::Backends(shortage)
        })
    }

    /// The id of a service; `None` before [`Ids::assign`] has seen it.
    pub fn service(&self, identity: &ServiceIdentity) -> Option<Id> {
        self.services.get(identity)
    }

    /// The backend of a service that has this id: its address and port.
    pub fn backend_at(&self, service: &ServiceIdentity, id: u16) -> Option<(IpAddr, u16)> {
        let from = (service.clone(), IpAddr::from([0; 4]), 0);
        let its = self.backends.live.range(from..);
        let mut its = its.take_while(|((one, ..), _)| one == service);
        let found = its.find(|(_, live)| live.id == id);
        found.map(|((_, address, port), _)| (*address, *port))
    }

    /// The id of a backend; `None` before [`Ids::assign`] has seen it.
    pub fn backend(&self, service: &ServiceIdentity, address: IpAddr, port: u16) -> Option<Id> {
        self.backends.get(&(service.clone(), address, port))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use lb_common::abi::{Backend as BackendEntry, Service as ServiceEntry};

    use super::*;

    fn keys(names: &[&'static str]) -> BTreeSet<&'static str> {
        names.iter().copied().collect()
    }

    fn id(id: u16, generation: u16) -> Option<Id> {
        Some(Id { id, generation })
    }

    #[test]
    fn ids_stay_while_others_come_and_go() {
        let mut ids = IdAllocator::new(10);
        ids.assign(&keys(&["b"])).unwrap();
        ids.assign(&keys(&["a", "b", "c"])).unwrap();
        ids.assign(&keys(&["b", "c"])).unwrap();
        assert_eq!(ids.get(&"b"), id(1, 1));
        assert_eq!(ids.get(&"c"), id(3, 1));
        assert_eq!(ids.get(&"a"), None);
    }

    #[test]
    fn the_number_free_for_longest_is_reused_last_and_with_a_new_generation() {
        let mut ids = IdAllocator::new(3);
        ids.assign(&keys(&["a", "b"])).unwrap();
        ids.assign(&keys(&["b"])).unwrap();
        ids.assign(&keys(&[])).unwrap();
        ids.assign(&keys(&["c"])).unwrap();
        assert_eq!(ids.get(&"c"), id(3, 1));
        ids.assign(&keys(&["c", "d"])).unwrap();
        assert_eq!(ids.get(&"d"), id(1, 2));
    }

    #[test]
    fn what_returns_gets_its_number_back_even_beside_newcomers() {
        let mut ids = IdAllocator::new(2);
        ids.assign(&keys(&["m", "n"])).unwrap();
        ids.assign(&keys(&[])).unwrap();
        ids.assign(&keys(&["a", "m"])).unwrap();
        assert_eq!(ids.get(&"m"), id(1, 1));
        assert_eq!(ids.get(&"a"), id(2, 2));
    }

    #[test]
    fn what_was_found_keeps_its_number_and_free_numbers_get_later_generations() {
        let live = BTreeMap::from([(
            "a",
            Id {
                id: 2,
                generation: 7,
            },
        )]);
        let used = BTreeMap::from([(1, 4), (2, 7)]);
        let mut ids = IdAllocator::adopted(3, live, used);
        ids.assign(&keys(&["a", "b", "c"])).unwrap();
        assert_eq!(ids.get(&"a"), id(2, 7));
        assert_eq!(
            ids.get(&"b"),
            id(1, 5),
            "flows of the former owner are on record"
        );
        assert_eq!(ids.get(&"c"), id(3, 1));
        ids.assign(&keys(&["a", "b", "c", "d"])).unwrap_err();
    }

    #[test]
    fn ids_come_back_from_the_maps() {
        let key = EndpointKey::new(
            IpAddr::from([203, 0, 113, 10]).into(),
            80_u16.to_be(),
            libc::IPPROTO_TCP as u8,
        );
        let entry = |host: u8, service_id, generation, port: u16| BackendEntry {
            address: IpAddr::from([10, 0, 0, host]).into(),
            service_id,
            generation,
            port_be: port.to_be(),
            ..BackendEntry::zeroed()
        };
        let maps = MapState {
            services: BTreeMap::from([(
                key,
                ServiceEntry {
                    id: 3,
                    generation: 2,
                    ..ServiceEntry::zeroed()
                },
            )]),
            backends: BTreeMap::from([
                (5, entry(11, 3, 4, 0)),
                (6, entry(12, 3, 1, 8_080)),
                (7, entry(13, 9, 8, 0)),
            ]),
            ..MapState::default()
        };
        let mut ids = Ids::adopted(9, 9, &maps, &BTreeMap::from([(1, 6)]));
        let web = ServiceIdentity {
            vip: IpAddr::from([203, 0, 113, 10]),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let backend =
            |ids: &Ids, host: u8, port| ids.backend(&web, IpAddr::from([10, 0, 0, host]), port);
        assert_eq!(ids.service(&web), id(3, 2));
        assert_eq!(
            backend(&ids, 11, 80),
            id(5, 4),
            "the port stays the service's"
        );
        assert_eq!(backend(&ids, 12, 8_080), id(6, 1));
        assert_eq!(backend(&ids, 13, 80), None, "of no service");
        let handed_out: Vec<Id> = (0..6).map(|_| ids.backends.hand_out()).collect();
        assert_eq!(
            handed_out[0],
            Id {
                id: 1,
                generation: 7
            }
        );
        assert_eq!(
            handed_out[4],
            Id {
                id: 7,
                generation: 9
            }
        );
    }

    #[test]
    fn ids_freed_by_a_change_are_not_given_out_by_it() {
        let mut ids = IdAllocator::new(2);
        ids.assign(&keys(&["a", "b"])).unwrap();
        let shortage = ids.assign(&keys(&["c"])).unwrap_err();
        assert_eq!(shortage, OutOfIds { live: 2, needed: 1 });
        assert_eq!(ids.get(&"a"), id(1, 1), "nothing was changed");
    }
}
