//! The classical design, for comparison: a plain Maglev ring, and each flow in a bounded table of which
//! the least recently used entry goes first, a table for each node. So do katran and its like: a SYN
//! is scheduled by the ring and recorded; what is not on record is too.

use std::collections::HashMap;
use std::rc::Rc;

use lb_common::hash::{self, mix};

use crate::balancer::{Balancer, LiveFlow, Segment, Vitals};
use crate::config::Config;
use crate::packet::{Kind, Source};

/// A node of the classical design.
pub(crate) struct ClassicalNode {
    ring: Rc<Vec<u16>>,
    table: LeastRecentlyUsed,
}

impl ClassicalNode {
    pub(crate) fn new(config: &Config, capacity: usize) -> Self {
        Self {
            ring: Rc::clone(&config.target),
            table: LeastRecentlyUsed::new(capacity),
        }
    }

    fn by_ring(&self, source: Source) -> u16 {
        let hash = mix(u64::from(source.address) << 16 | u64::from(source.port));
        self.ring[hash::index(hash::upper(hash), self.ring.len() as u32) as usize]
    }
}

impl Balancer for ClassicalNode {
    fn steer(&mut self, segment: &Segment) -> Option<usize> {
        let known = if segment.kind == Kind::Syn {
            None
        } else {
            self.table.touch(segment.source)
        };
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.by_ring(segment.source);
                self.table.put(segment.source, id);
                id
            }
        };
        (id != 0).then(|| usize::from(id) - 1)
    }

    fn tick(&mut self, _now_ms: u64) {}

    /// The ring changes at once. Flows on record keep their backend whether that is drained, down or
    /// removed, so that both designs are asked the same.
    fn configure(&mut self, config: &Config) {
        self.ring = Rc::clone(&config.target);
    }

    fn audit(&mut self, _flows: &mut dyn Iterator<Item = LiveFlow>) -> Vec<String> {
        Vec::new()
    }

    fn explain(&self, source: Source) -> String {
        let place = self.table.places.get(&source);
        let known = place.map(|place| self.table.links[*place].backend_id);
        format!("ring {} table {known:?}", self.by_ring(source))
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            entry_count: self.table.places.len(),
            ..Vitals::default()
        }
    }
}

/// A bounded table that forgets what was not used for longest: a list through an array, and an index.
struct LeastRecentlyUsed {
    places: HashMap<Source, usize>,
    /// The first is the list's head: its `next` is the newest, its `before` the oldest.
    links: Vec<Link>,
    capacity: usize,
}

#[derive(Clone, Copy)]
struct Link {
    source: Source,
    backend_id: u16,
    before: usize,
    next: usize,
}

const HEAD: usize = 0;

impl LeastRecentlyUsed {
    fn new(capacity: usize) -> Self {
        let nobody = Source {
            address: 0,
            port: 0,
        };
        let head = Link {
            source: nobody,
            backend_id: 0,
            before: HEAD,
            next: HEAD,
        };
        Self {
            places: HashMap::new(),
            links: vec![head],
            capacity,
        }
    }

    fn touch(&mut self, source: Source) -> Option<u16> {
        let place = *self.places.get(&source)?;
        self.unlink(place);
        self.link_first(place);
        Some(self.links[place].backend_id)
    }

    fn put(&mut self, source: Source, backend_id: u16) {
        if self.touch(source).is_some() {
            let place = self.places[&source];
            self.links[place].backend_id = backend_id;
            return;
        }
        let place = self.vacant();
        self.links[place].source = source;
        self.links[place].backend_id = backend_id;
        self.places.insert(source, place);
        self.link_first(place);
    }

    fn vacant(&mut self) -> usize {
        if self.links.len() <= self.capacity {
            self.links.push(self.links[HEAD]);
            return self.links.len() - 1;
        }
        let oldest = self.links[HEAD].before;
        self.unlink(oldest);
        self.places.remove(&self.links[oldest].source);
        oldest
    }

    fn unlink(&mut self, place: usize) {
        let Link { before, next, .. } = self.links[place];
        self.links[before].next = next;
        self.links[next].before = before;
    }

    fn link_first(&mut self, place: usize) {
        let next = self.links[HEAD].next;
        self.links[place].before = HEAD;
        self.links[place].next = next;
        self.links[next].before = place;
        self.links[HEAD].next = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_is_forgotten_first() {
        let source = |port| Source { address: 1, port };
        let mut table = LeastRecentlyUsed::new(2);
        table.put(source(1), 1);
        table.put(source(2), 2);
        assert_eq!(table.touch(source(1)), Some(1));
        table.put(source(3), 3);
        assert_eq!(table.touch(source(2)), None);
        assert_eq!(table.touch(source(1)), Some(1));
        table.put(source(1), 4);
        assert_eq!(table.touch(source(1)), Some(4));
        assert_eq!(table.places.len(), 2);
    }
}
