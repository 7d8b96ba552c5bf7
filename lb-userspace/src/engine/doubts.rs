//! What passes by of each backend, second by second, where a service wants it to count.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::core::Engine;
use crate::desired::ids::ServiceIdentity;
use crate::maps::MapStore as _;
use crate::model::doubt::Passed;

/// Doubts that wait to be heard; beyond them they are lost: the next second has new ones.
const WAITING_MAX: usize = 256;

/// What passes by puts a backend in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// Why.
    pub reason: String,
}

/// The engine's look at what passes by.
#[derive(Debug)]
pub(super) struct Doubts {
    sender: mpsc::Sender<InDoubt>,
    receiver: Option<mpsc::Receiver<InDoubt>>,
    /// By backend id and generation, what was counted at the last look.
    counted: BTreeMap<(u16, u16), Passed>,
}

impl Default for Doubts {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            receiver: Some(receiver),
            counted: BTreeMap::new(),
        }
    }
}

impl Doubts {
    /// Where the doubts are heard, once.
    pub(super) fn listener(&mut self) -> mpsc::Receiver<InDoubt> {
        let closed = || mpsc::channel(1).1;
        self.receiver.take().unwrap_or_else(closed)
    }
}

impl Engine {
    /// Looks at what has passed by since the last time; to be called once a second.
    pub(super) fn look_for_doubts(&mut self) {
        let mut counted = BTreeMap::new();
        for service in self.model.services.values() {
            if !service.doubt.is_on() {
                continue;
            }
            let identity = ServiceIdentity::of(service);
            for backend in service.backends.values() {
                let id = self.ids.backend(&identity, backend.address, backend.port);
                let Some((id, now)) = id.and_then(|id| Some((id, self.passed_by(id.id)?))) else {
                    continue;
                };
                let key = (id.id, id.generation);
                let before = self.doubts.counted.get(&key).copied();
                counted.insert(key, now);
                let reason = before.and_then(|before| service.doubt.reason(&now.since(&before)));
                if let Some(reason) = reason {
                    // Full: it is said again in a second.
                    let _lost = self.doubts.sender.try_send(InDoubt {
                        service: service.name.clone(),
                        backend: backend.name.clone(),
                        reason,
                    });
                }
            }
        }
        self.doubts.counted = counted;
    }

    /// What has ever passed by; what cannot be read says nothing.
    fn passed_by(&self, id: u16) -> Option<Passed> {
        let stats = self.store.backend_stats(id).ok()?;
        let signals = self.store.backend_signals(id).ok()?;
        Some(Passed {
            new_flows: stats.new_flows,
            repeated_syns: signals.repeated_syns,
            resets: signals.client_resets + signals.backend_resets,
        })
    }
}
