//! What came of a run.

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Connections that were established.
    pub(crate) established_count: u64,
    /// Connections begun.
    pub(crate) opened_count: u64,
    /// Connections given up after all their SYNs.
    pub(crate) unopened_count: u64,
    /// Broken connections, in words.
    pub(crate) broken: Vec<String>,
    /// Broken while their record was on its way to the node that they came to.
    pub(crate) unsynced_count: usize,
    /// Handshakes under way that were split or reset.
    pub(crate) handshake_count: usize,
    /// Connections that died with their backend.
    pub(crate) died_count: u64,
    /// Packets of clients.
    pub(crate) packet_count: u64,
    /// Packets of connections to dead backends.
    pub(crate) to_dead_count: u64,
    /// SYNs to dead backends.
    pub(crate) syn_to_dead_count: u64,
    /// Packets that found no node.
    pub(crate) lost_count: u64,
    /// Packets dropped by a node.
    pub(crate) dropped_count: u64,
    /// Rings written.
    pub(crate) write_count: usize,
    /// Times that the VIP went to another node.
    pub(crate) failover_count: u64,
    /// While several nodes were Active. Unit: milliseconds.
    pub(crate) dual_active_ms: u64,
    /// Times of calm in which the routers of all parts of the network were looked at.
    pub(crate) calm_count: u64,
    /// Times that a connection was looked up at another node than its own.
    pub(crate) flow_look_count: u64,
    /// Of these, where the other node had not heard yet of a move away from the dead, and would not have kept it.
    pub(crate) ahead_count: u64,
    /// What an attacker has sent.
    pub(crate) attack_count: u64,
    /// Contradictions to the invariants.
    pub(crate) violations: Vec<String>,
}

/// Contradictions that are kept.
const VIOLATIONS_MAX: usize = 10;

impl Outcome {
    pub(crate) fn has_failed(&self) -> bool {
        !self.broken.is_empty() || !self.violations.is_empty() || self.dropped_count > 0
    }

    pub(crate) fn violate(&mut self, at_ms: u64, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at_s = at_ms as f64 / 1_000.0;
            self.violations.push(format!("{at_s:>8.3} s  {text}"));
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.established_count += other.established_count;
        self.opened_count += other.opened_count;
        self.unopened_count += other.unopened_count;
        self.broken.extend(other.broken.iter().cloned());
        self.unsynced_count += other.unsynced_count;
        self.handshake_count += other.handshake_count;
        self.died_count += other.died_count;
        self.packet_count += other.packet_count;
        self.to_dead_count += other.to_dead_count;
        self.syn_to_dead_count += other.syn_to_dead_count;
        self.lost_count += other.lost_count;
        self.dropped_count += other.dropped_count;
        self.write_count += other.write_count;
        self.failover_count += other.failover_count;
        self.dual_active_ms += other.dual_active_ms;
        self.calm_count += other.calm_count;
        self.flow_look_count += other.flow_look_count;
        self.ahead_count += other.ahead_count;
        self.attack_count += other.attack_count;
        self.violations.extend(other.violations.iter().cloned());
    }
}
