//! The links that are open, and the ways to backends: one of each for a thread.
//!
//! By thread, since a packet socket belongs to the network namespace of the thread that opened it, and all
//! checks are asked from one thread. That spares every probe a parameter that only this way needs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};

use ring::rand::{SecureRandom, SystemRandom};

use super::frame::Family;
use super::link::Wire;
use crate::ways::WaysReceiver;

thread_local! {
    static LINKS: RefCell<BTreeMap<(u32, Family), Weak<Wire>>> = const { RefCell::new(BTreeMap::new()) };
    static WAYS: RefCell<Option<WaysReceiver>> = const { RefCell::new(None) };
}

/// From now on, this thread's probes through the datapath go these ways.
pub fn follow(ways: WaysReceiver) {
    WAYS.set(Some(ways));
}

/// The ways to be followed, if they were told.
pub(super) fn ways() -> Option<WaysReceiver> {
    WAYS.with_borrow(Clone::clone)
}

/// The link, opened if it is not open.
pub(super) fn wire(ifindex: u32, family: Family) -> io::Result<Arc<Wire>> {
    LINKS.with_borrow_mut(|links| {
        let known = links.get(&(ifindex, family)).and_then(Weak::upgrade);
        if let Some(wire) = known.filter(|wire| wire.is_open()) {
            return Ok(wire);
        }
        let wire = Wire::open(ifindex, family, u16::from_ne_bytes(random()?))?;
        links.retain(|_, link| link.strong_count() > 0);
        links.insert((ifindex, family), Arc::downgrade(&wire));
        Ok(wire)
    })
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(io::Error::other("the system gave no random bytes")),
    }
}
