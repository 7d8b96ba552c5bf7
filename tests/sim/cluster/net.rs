//! The two networks between the nodes, and what is under way in them.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

use crate::rng::Rng;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The clients' network, on which nodes hear each other's advertisements.
    Lan,
    /// The sync link.
    Sync,
}

/// What is lost, and how long the rest takes.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    /// Nodes whose leg in the clients' network is down.
    pub(crate) lan_down: BTreeSet<usize>,
    /// Directions between two nodes in the clients' network that are cut.
    pub(crate) lan_cut: BTreeSet<(usize, usize)>,
    /// Directions of the sync link that are cut.
    pub(crate) sync_cut: BTreeSet<(usize, usize)>,
    /// Unit: per mille.
    pub(crate) sync_loss: u64,
    /// Of what nodes say to each other in the clients' network. Unit: per mille.
    pub(crate) lan_loss: u64,
    rng: Rng,
}

impl Net {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            lan_down: BTreeSet::new(),
            lan_cut: BTreeSet::new(),
            sync_cut: BTreeSet::new(),
            sync_loss: 0,
            lan_loss: 0,
            rng,
        }
    }

    pub(crate) fn is_open(&self, path: Path, from: usize, to: usize) -> bool {
        match path {
            Path::Lan => {
                let is_any_down = self.lan_down.contains(&from) || self.lan_down.contains(&to);
                !is_any_down && !self.lan_cut.contains(&(from, to))
            }
            Path::Sync => !self.sync_cut.contains(&(from, to)),
        }
    }

    /// How long a datagram takes; `None`: it is lost.
    pub(crate) fn datagram(&mut self, path: Path, from: usize, to: usize) -> Option<u64> {
        if !self.is_open(path, from, to) {
            return None;
        }
        let loss = match path {
            Path::Lan => self.lan_loss,
            Path::Sync => self.sync_loss,
        };
        // Where nothing is lost, nothing is drawn.
        if loss > 0 && self.rng.happens(loss) {
            return None;
        }
        // Some are overtaken.
        let delay_ms = if self.rng.happens(20) { 15 } else { 1 };
        Some(delay_ms + self.rng.below(2))
    }

    /// How long it takes to know whether a piece of a stream arrives. Unit: milliseconds.
    pub(crate) fn flight_ms(&mut self) -> u64 {
        1 + self.rng.below(2)
    }

    /// Whether a piece of a stream over the sync link arrives.
    pub(crate) fn carries(&mut self, from: usize, to: usize) -> bool {
        self.is_open(Path::Sync, from, to) && !self.rng.happens(self.sync_loss)
    }
}

/// What is due when; in the order of entry at the same time.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at_ms: u64,
    number: u64,
    due: T,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            count: 0,
        }
    }

    pub(crate) fn push(&mut self, at_ms: u64, due: T) {
        self.count += 1;
        self.heap.push(Entry {
            at_ms,
            number: self.count,
            due,
        });
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let entry = self.heap.pop()?;
        Some((entry.at_ms, entry.due))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}
