//! What a node's ids of services and backends mean, in words that every node understands; and the translation of
//! one node's ids into another's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::Malformed;
use crate::sync::flow::SharedFlow;

/// Services and backends in one frame, each at most. A backend takes up to 29 bytes, a service up to 25.
const PART_ENTRIES_MAX: usize = 1000;
/// The most parts: ids have 16 bits.
const PARTS_MAX: u16 = ((u16::MAX as usize + 1).div_ceil(PART_ENTRIES_MAX)) as u16;

/// What a service is known by on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceEndpoint {
    /// The VIP.
    pub vip: IpAddr,
    /// The port, host byte order; 0 = all.
    pub port: u16,
    /// The protocol, as IP numbers it.
    pub protocol: u8,
}

/// A backend by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendEndpoint {
    /// The id of its service, on the same node.
    pub service_id: u16,
    /// Which of the id's holders it is.
    pub generation: u16,
    /// Where it is.
    pub address: SocketAddr,
}

/// What a node's ids mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary {
    /// Services by id.
    pub services: BTreeMap<u16, ServiceEndpoint>,
    /// Backends by id.
    pub backends: BTreeMap<u16, BackendEndpoint>,
}

/// A part of a dictionary, as it is sent: parts come in order.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    version: u32,
    number: u16,
    count: u16,
    services: Vec<(u16, ServiceEndpoint)>,
    backends: Vec<(u16, BackendEndpoint)>,
}

/// This node's dictionary with its version, which counts from 1 for the first one.
#[derive(Debug, Default)]
pub struct Vocabulary {
    dictionary: Arc<Dictionary>,
    version: u32,
    /// By backend's id: since which version it means what it does, and its generation; version 0 = it means nothing.
    since: Vec<(u32, u16)>,
}

impl Vocabulary {
    /// The dictionary's version; 0 = there is none yet.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The dictionary.
    pub fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }

    /// Takes the dictionary as it is now. Whether it is another.
    pub fn update(&mut self, dictionary: Arc<Dictionary>) -> bool {
        let is_first = self.version == 0;
        if !is_first && Arc::ptr_eq(&self.dictionary, &dictionary) {
            return false;
        }
        let old = std::mem::replace(&mut self.dictionary, dictionary);
        if !is_first && *old == *self.dictionary {
            return false;
        }
        self.version += 1;
        let mut since = Vec::new();
        for (id, backend) in &self.dictionary.backends {
            let place = usize::from(*id);
            since.resize(place + 1, (0, 0));
            let is_same = old.backends.get(id) == Some(backend)
                && old.services.get(&backend.service_id)
                    == self.dictionary.services.get(&backend.service_id);
            let version = match self.since.get(place) {
                Some((version, _)) if is_same && *version > 0 => *version,
                _ => self.version,
            };
            since[place] = (version, backend.generation);
        }
        self.since = since;
        true
    }

    /// The version that is needed to understand a flow; `None` if this node has no words for it.
    pub fn needed(&self, flow: &SharedFlow) -> Option<u32> {
        let (version, generation) = self.since.get(usize::from(flow.backend_id)).copied()?;
        (version > 0 && generation == flow.generation).then_some(version)
    }

    /// The payloads of the frames that tell it, in their order.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let services: Vec<_> = self
            .dictionary
            .services
            .iter()
            .map(|(id, e)| (*id, *e))
            .collect();
        let backends: Vec<_> = self
            .dictionary
            .backends
            .iter()
            .map(|(id, e)| (*id, *e))
            .collect();
        let longest = services.len().max(backends.len());
        let count = longest.div_ceil(PART_ENTRIES_MAX).max(1);
        let nth = |number: usize, len: usize| {
            let start = (number * PART_ENTRIES_MAX).min(len);
            start..(start + PART_ENTRIES_MAX).min(len)
        };
        let parts = (0..count).map(|number| Part {
            version: self.version,
            number: number as u16,
            count: count as u16,
            services: services[nth(number, services.len())].to_vec(),
            backends: backends[nth(number, backends.len())].to_vec(),
        });
        parts
            .map(|part| postcard::to_stdvec(&part).expect("plain values in memory"))
            .collect()
    }
}

/// A peer's dictionary, as far as it has arrived.
#[derive(Debug, Default)]
pub struct Assembly {
    version: u32,
    next: u16,
    dictionary: Dictionary,
}

impl Assembly {
    /// Takes a frame's payload: a version and its dictionary, when it is whole.
    ///
    /// # Errors
    /// [`Malformed`]: what has arrived of it so far is dropped.
    pub fn take(&mut self, payload: &[u8]) -> Result<Option<(u32, Dictionary)>, Malformed> {
        let mut assembly = std::mem::take(self);
        let (part, _later): (Part, _) = postcard::take_from_bytes(payload)
            .map_err(|_| Malformed::Content("a part of a dictionary cannot be read"))?;
        if part.number == 0 {
            assembly = Self {
                version: part.version,
                ..Self::default()
            };
        }
        let is_next = part.version == assembly.version && part.number == assembly.next;
        if !is_next || part.version == 0 || part.count > PARTS_MAX || part.number >= part.count {
            return Err(Malformed::Content("a part of a dictionary is missing"));
        }
        assembly.next += 1;
        assembly.dictionary.services.extend(part.services);
        assembly.dictionary.backends.extend(part.backends);
        if assembly.next == part.count {
            return Ok(Some((assembly.version, assembly.dictionary)));
        }
        *self = assembly;
        Ok(None)
    }
}

/// Why a flow means nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untranslatable {
    /// This node has no such service.
    Unknown,
    /// This node has the service, and no such backend in it.
    Stranger,
    /// The peer's dictionary gives the id to another backend by now.
    Stale,
}

/// Of a peer's ids into this node's.
#[derive(Debug, Default)]
pub struct Translation {
    /// By the peer's id of a backend.
    backends: Vec<Option<Meaning>>,
}

#[derive(Clone, Copy, Debug)]
struct Meaning {
    /// The peer's.
    generation: u16,
    service_id: u16,
    /// This node's.
    local: Result<Local, Untranslatable>,
}

#[derive(Clone, Copy, Debug)]
struct Local {
    service_id: u16,
    backend_id: u16,
    generation: u16,
}

impl Translation {
    /// From the peer's words to this node's.
    pub fn new(theirs: &Dictionary, ours: &Dictionary) -> Self {
        let by_endpoint: HashMap<(ServiceEndpoint, SocketAddr), Local> = ours
            .backends
            .iter()
            .filter_map(|(id, backend)| {
                let service = ours.services.get(&backend.service_id)?;
                let local = Local {
                    service_id: backend.service_id,
                    backend_id: *id,
                    generation: backend.generation,
                };
                Some(((*service, backend.address), local))
            })
            .collect();
        let services: HashSet<ServiceEndpoint> = ours.services.values().copied().collect();
        let local = |service: Option<&ServiceEndpoint>, address| {
            let service = service.filter(|service| services.contains(service));
            let service = service.ok_or(Untranslatable::Unknown)?;
            let local = by_endpoint.get(&(*service, address));
            local.copied().ok_or(Untranslatable::Stranger)
        };
        let mut backends = Vec::new();
        for (id, backend) in &theirs.backends {
            let service = theirs.services.get(&backend.service_id);
            let local = local(service, backend.address);
            backends.resize(usize::from(*id) + 1, None);
            backends[usize::from(*id)] = Some(Meaning {
                generation: backend.generation,
                service_id: backend.service_id,
                local,
            });
        }
        Self { backends }
    }

    /// The flow in this node's words. A displaced backend that means nothing here is left out.
    ///
    /// # Errors
    /// [`Untranslatable`].
    pub fn flow(&self, flow: &SharedFlow) -> Result<SharedFlow, Untranslatable> {
        let meaning = self
            .meaning(flow.backend_id, flow.generation)
            .filter(|meaning| meaning.service_id == flow.service_id)
            .ok_or(Untranslatable::Stale)?;
        let local = meaning.local?;
        let displaced = self
            .meaning(flow.displaced_id, flow.displaced_generation)
            .and_then(|meaning| meaning.local.ok())
            .filter(|displaced| displaced.service_id == local.service_id);
        Ok(SharedFlow {
            service_id: local.service_id,
            backend_id: local.backend_id,
            generation: local.generation,
            displaced_id: displaced.map_or(0, |displaced| displaced.backend_id),
            displaced_generation: displaced.map_or(0, |displaced| displaced.generation),
            ..*flow
        })
    }

    fn meaning(&self, id: u16, generation: u16) -> Option<Meaning> {
        let meaning = self.backends.get(usize::from(id)).copied().flatten();
        meaning.filter(|meaning| meaning.generation == generation)
    }
}

#[cfg(test)]
#[path = "dictionary_tests.rs"]
mod tests;
