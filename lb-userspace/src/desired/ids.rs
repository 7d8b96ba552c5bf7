//! Ids of services and backends: stable while the thing lives, not reused soon after.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::model::{Model, Protocol, Service};

/// What makes a service the same service: its name and its VIP endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceIdentity {
    name: String,
    vip: IpAddr,
    port: u16,
    protocol: Protocol,
}

impl ServiceIdentity {
    /// The identity of a service of the model.
    pub fn of(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            vip: service.vip,
            port: service.port,
            protocol: service.protocol,
        }
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
}

impl<K: Ord + Clone> IdAllocator<K> {
    /// An allocator for at most `id_max` live ids.
    pub const fn new(id_max: u16) -> Self {
        Self {
            id_max,
            fresh: 1,
            live: BTreeMap::new(),
            retired: VecDeque::new(),
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
        let free = usize::from(self.id_max) + 1 - usize::from(self.fresh) + self.retired.len();
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
        if self.fresh <= self.id_max {
            let id = self.fresh;
            self.fresh += 1;
            return Id { id, generation: 1 };
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

    /// The id of a backend; `None` before [`Ids::assign`] has seen it.
    pub fn backend(&self, service: &ServiceIdentity, address: IpAddr, port: u16) -> Option<Id> {
        self.backends.get(&(service.clone(), address, port))
    }
}

#[cfg(test)]
mod tests {
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
    fn ids_freed_by_a_change_are_not_given_out_by_it() {
        let mut ids = IdAllocator::new(2);
        ids.assign(&keys(&["a", "b"])).unwrap();
        let shortage = ids.assign(&keys(&["c"])).unwrap_err();
        assert_eq!(shortage, OutOfIds { live: 2, needed: 1 });
        assert_eq!(ids.get(&"a"), id(1, 1), "nothing was changed");
    }
}
