//! What the operator and the health checks say about the backends, and the ring that follows.

use std::collections::BTreeSet;
use std::rc::Rc;

use lb_common::abi::Slot;
use lb_common::hash;
use lb_common::maglev::{self, Cursor, Member};

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    /// It gets new flows.
    Ready,
    /// It keeps the flows that it has.
    Drain,
    /// The same at once, at the price of handshakes under way.
    StrictDrain,
    /// It is in the model no more, or not yet; its flows are kept.
    Absent,
}

/// A backend in the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackendConfig {
    pub(crate) weight: u32,
    pub(crate) admin: Admin,
    /// What the health checks say; the truth may be another.
    pub(crate) is_up: bool,
}

impl BackendConfig {
    pub(crate) fn is_eligible(&self) -> bool {
        self.admin == Admin::Ready && self.is_up
    }
}

/// The model: the same on all nodes, though not at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The backend at position n has id n + 1.
    pub(crate) backends: Vec<BackendConfig>,
    /// The ring that should be in force, by backend id.
    pub(crate) target: Rc<Vec<u16>>,
}

impl Config {
    pub(crate) fn new(backends: Vec<BackendConfig>, ring_len: u32) -> Self {
        let mut config = Self {
            backends,
            target: Rc::new(vec![0; ring_len as usize]),
        };
        config.refill();
        config
    }

    /// Fills the target anew. Without an eligible backend it stays as it is (`last_good`).
    pub(crate) fn refill(&mut self) {
        let members: Vec<Member> = (1..)
            .zip(&self.backends)
            .filter(|(_, backend)| backend.is_eligible())
            .map(|(id, backend)| Member {
                id,
                identity: hash::mix(u64::from(id)),
                weight: backend.weight,
            })
            .collect();
        if members.is_empty() {
            return;
        }
        let mut ring = vec![0; self.target.len()];
        maglev::fill(
            &mut ring,
            &members,
            &mut vec![Cursor::default(); members.len()],
        );
        self.target = Rc::new(ring.iter().map(|slot| Slot(*slot).current()).collect());
    }

    /// Ids of the backends whose slots change without preparation.
    pub(crate) fn urgent(&self) -> BTreeSet<u16> {
        self.ids(|backend| !backend.is_up || backend.admin == Admin::StrictDrain)
    }

    /// Ids of the backends that are down.
    pub(crate) fn down(&self) -> BTreeSet<u16> {
        self.ids(|backend| !backend.is_up)
    }

    fn ids(&self, is_meant: impl Fn(&BackendConfig) -> bool) -> BTreeSet<u16> {
        let backends = (1..).zip(&self.backends);
        backends
            .filter(|(_, backend)| is_meant(backend))
            .map(|(id, _)| id)
            .collect()
    }
}
