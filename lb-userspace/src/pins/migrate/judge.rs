//! Whose record of a flow stays, where the old table and the new one have one.

use std::collections::BTreeMap;

use lb_common::abi::{Backend, FlowRecord};
use lb_common::limits::IDLE_TIMEOUT_TCP_S;
use lb_common::wire::tcp::PROTOCOL_TCP;

use super::{read_backends, read_services};
use crate::maps::Flow;
use crate::maps::flow_rule::{Clocks, Lifetime, Sighting, compare};
use crate::pins::{MapSet, PinError};

/// Whose record of a flow stays, where both tables have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// The old table's: packets use that one alone.
    Old,
    /// That of the later packet: they use the new one, and have used the old one a moment ago.
    Later,
}

/// Decides between two records of a flow.
pub(super) struct Judge {
    pub(super) precedence: Precedence,
    pub(super) lifetimes: Lifetimes,
    /// On the packet path's clock.
    pub(super) now_s: u32,
}

impl Judge {
    /// Whether the old table's record takes the place of the present one.
    pub(super) fn prefers(&self, old: &Flow, present: &Flow) -> bool {
        let compared = || compare(&self.sighting(old), &self.sighting(present), Clocks::Same);
        match self.precedence {
            Precedence::Old => true,
            Precedence::Later => compared().is_gt(),
        }
    }

    fn sighting(&self, flow: &Flow) -> Sighting {
        let (record, origin) = (flow.record, &flow.origin);
        let backend = |id: u16, generation: u16| u64::from(id) << 16 | u64::from(generation);
        Sighting {
            age_s: self.lifetimes.of(record).age_s(record, self.now_s),
            state: record.state(),
            sequence: origin.sequence,
            backend: backend(record.backend_id(), record.backend_generation()),
            displaced: backend(origin.displaced_id, origin.displaced_generation),
        }
    }
}

/// How long flows are kept, by their backend's id.
pub(super) struct Lifetimes(BTreeMap<u16, Lifetime>);

impl Lifetimes {
    /// Of a flow whose backend or service has gone.
    const UNKNOWN: Lifetime = Lifetime {
        protocol: PROTOCOL_TCP,
        idle_timeout_s: IDLE_TIMEOUT_TCP_S,
    };

    pub(super) fn read(maps: &MapSet) -> Result<Self, PinError> {
        let services: BTreeMap<u16, Lifetime> = read_services(maps)?
            .into_iter()
            .map(|(key, service)| {
                let lifetime = Lifetime {
                    protocol: key.protocol,
                    idle_timeout_s: service.idle_timeout_s,
                };
                (service.id, lifetime)
            })
            .collect();
        let backends = read_backends(maps)?.into_iter();
        let of = |(id, backend): (u16, Backend)| Some((id, *services.get(&backend.service_id)?));
        Ok(Self(backends.filter_map(of).collect()))
    }

    fn of(&self, record: FlowRecord) -> Lifetime {
        let known = self.0.get(&record.backend_id());
        known.copied().unwrap_or(Self::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::abi::{FlowOrigin, FlowState};

    use super::*;

    fn judge(precedence: Precedence) -> Judge {
        let lifetime = Lifetime {
            protocol: PROTOCOL_TCP,
            idle_timeout_s: 300,
        };
        Judge {
            precedence,
            lifetimes: Lifetimes(BTreeMap::from([(1, lifetime), (2, lifetime)])),
            now_s: 1_000,
        }
    }

    fn flow(backend_id: u16, expires_s: u32, state: FlowState, sequence: u32) -> Flow {
        Flow {
            fingerprint: 99,
            record: FlowRecord::new(backend_id, 1, expires_s, state),
            origin: FlowOrigin {
                sequence,
                ..FlowOrigin::zeroed()
            },
        }
    }

    #[test]
    fn a_port_used_again_during_the_exchange_takes_its_new_backend_along() {
        // The former flow's last packet came 5 s ago, the SYN of its successor 1 s ago.
        let former = flow(1, 1_295, FlowState::OPEN, 7);
        let successor = flow(2, 1_062, FlowState::HALF_OPEN, 9);
        assert!(judge(Precedence::Old).prefers(&successor, &former));
        assert!(judge(Precedence::Later).prefers(&successor, &former));
        assert!(!judge(Precedence::Later).prefers(&former, &successor));
    }

    #[test]
    fn until_the_switch_no_record_but_the_old_tables_counts() {
        let (now, before) = (
            flow(1, 1_060, FlowState::FIN, 7),
            flow(1, 1_300, FlowState::OPEN, 7),
        );
        assert!(judge(Precedence::Old).prefers(&before, &now));
        assert!(!judge(Precedence::Later).prefers(&before, &now));
    }

    #[test]
    fn a_flow_of_a_backend_that_has_gone_is_compared_by_the_default_time_out() {
        let gone = flow(9, 1_890, FlowState::OPEN, 7);
        let known = flow(1, 1_299, FlowState::OPEN, 9);
        assert!(judge(Precedence::Later).prefers(&known, &gone));
        assert!(!judge(Precedence::Later).prefers(&gone, &known));
    }
}
