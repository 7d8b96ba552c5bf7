//! What must hold, during a history and after it.

use super::{START_MS, World};
use crate::balancer::LiveFlow;
use crate::history::Load;

impl World<'_> {
    /// Every established flow would be steered to its backend, seen or not.
    pub(super) fn audit(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let clients = self.clients.iter().enumerate();
            let mut flows = clients.filter_map(|(position, client)| {
                let backend = client.owner?;
                let is_its = client.node == number && client.is_live() && client.is_promised();
                is_its.then(|| LiveFlow {
                    source: client.source(position),
                    sequence: client.sequence(),
                    backend,
                })
            });
            let found = node.audit(&mut flows);
            self.outcome.violate(self.now_ms - START_MS, number, found);
        }
    }

    /// What is left of the past is live exceptions, and the nodes agree.
    pub(super) fn check_settled(&mut self) {
        let rings: Vec<_> = self.nodes.iter().map(|node| node.vitals()).collect();
        for (number, vitals) in rings.iter().enumerate() {
            // A table that is too small never settles: that is its price.
            let is_excused = self.plan.load == Load::FullTable;
            if vitals.unsettled_count != vitals.quiet_count && !is_excused {
                let text = format!("not settled: {} slots", vitals.unsettled_count);
                self.outcome
                    .violate(self.now_ms - START_MS, number, vec![text]);
            }
            if vitals.ring != rings[0].ring {
                let text = "the ring is another than the first node's".to_owned();
                self.outcome
                    .violate(self.now_ms - START_MS, number, vec![text]);
            }
            let live_count = self
                .clients
                .iter()
                .filter(|client| client.is_live())
                .count();
            if vitals.entry_count > 4 * live_count + 10 {
                let text = format!("{} entries for {live_count} flows", vitals.entry_count);
                self.outcome
                    .violate(self.now_ms - START_MS, number, vec![text]);
            }
            self.outcome.write_count += vitals.write_count;
        }
    }

    /// Nothing is left.
    pub(super) fn check_empty(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let vitals = node.vitals();
            if vitals.unsettled_count + vitals.entry_count != 0 {
                let text = format!(
                    "left over: {} slots, {} entries",
                    vitals.unsettled_count, vitals.entry_count
                );
                self.outcome
                    .violate(self.now_ms - START_MS, number, vec![text]);
            }
        }
    }
}
