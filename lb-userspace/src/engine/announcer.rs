//! Announcements of VIPs, repeated: a frame can get lost, and a switch may be slow to forward.
//!
//! A VIP is announced when it was added, and when its link comes up or changes its Ethernet address.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tracing::warn;

use super::own_vips::OwnVips;
use crate::netlink::announce::PacketSocket;
use crate::netlink::view::{LinkAddress, View};

/// How often a VIP is announced, a second apart.
const REPEATS: u8 = 4;

/// VIPs announced in each second: a few milliseconds' worth of frames. What is left over comes in
/// the next one.
const VIPS_PER_TICK_MAX: usize = 512;

/// What is still to be announced, and by what.
pub(super) struct Announcer {
    socket: Option<PacketSocket>,
    queue: Queue,
    /// What went wrong last, so that it is logged once.
    trouble: Option<String>,
}

impl Announcer {
    /// Opens the one socket for all announcements. Without it VIPs are still found by whoever asks
    /// for them: this is no failure.
    pub(super) fn open() -> Self {
        let socket = PacketSocket::open()
            .inspect_err(|error| warn!("VIPs will not be announced: {error:#}"))
            .ok();
        Self {
            socket,
            queue: Queue::default(),
            trouble: None,
        }
    }

    /// Announces a VIP with the next [`Announcer::speak`] and a few times more.
    pub(super) fn start(&mut self, vip: IpAddr, ifindex: u32) {
        self.queue.start(vip, ifindex);
    }

    /// Announces it no more.
    pub(super) fn stop(&mut self, vip: IpAddr) {
        self.queue.stop(vip);
    }

    /// Starts anew with the VIPs of each of the interfaces `ifindexes` that has come up or has
    /// another Ethernet address: switches have to learn where they are.
    pub(super) fn follow_links(&mut self, ifindexes: &BTreeSet<u32>, view: &View, own: &OwnVips) {
        let changed = self.queue.changed_links(ifindexes, view);
        for (vip, _) in own.iter() {
            if let Some(ifindex) = own.holder(vip, view).filter(|one| changed.contains(one)) {
                self.queue.start(vip, ifindex);
            }
        }
    }

    /// Begins the next second. To be called as often.
    pub(super) fn tick(&mut self, view: &View) {
        self.queue.tick();
        self.speak(view);
    }

    /// Sends what is due.
    pub(super) fn speak(&mut self, view: &View) {
        let Some(socket) = &self.socket else {
            return;
        };
        let send = |ifindex, source, vip| socket.announce(ifindex, source, vip);
        let trouble = self.queue.speak(view, send).err();
        let trouble = trouble.map(|error| format!("{error:#}"));
        if let (Some(now), true) = (&trouble, trouble != self.trouble) {
            warn!("{now}");
        }
        self.trouble = trouble;
    }
}

struct Pending {
    vip: IpAddr,
    ifindex: u32,
    /// Announcements to come.
    left: u8,
    /// Not yet announced in this second.
    is_due: bool,
}

/// Sans-IO.
#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    /// The Ethernet address of each attached link, while it is up.
    voices: BTreeMap<u32, Option<LinkAddress>>,
    spoken_for: usize,
}

impl Queue {
    fn start(&mut self, vip: IpAddr, ifindex: u32) {
        self.stop(vip);
        self.pending.push(Pending {
            vip,
            ifindex,
            left: REPEATS,
            is_due: true,
        });
    }

    fn stop(&mut self, vip: IpAddr) {
        self.pending.retain(|pending| pending.vip != vip);
    }

    fn changed_links(&mut self, ifindexes: &BTreeSet<u32>, view: &View) -> BTreeSet<u32> {
        self.voices.retain(|ifindex, _| ifindexes.contains(ifindex));
        let mut changed = BTreeSet::new();
        for ifindex in ifindexes {
            let now = voice(*ifindex, view);
            let before = self.voices.insert(*ifindex, now);
            if now.is_some() && before != Some(now) {
                changed.insert(*ifindex);
            }
        }
        changed
    }

    fn tick(&mut self) {
        self.spoken_for = 0;
        for pending in &mut self.pending {
            pending.is_due = true;
        }
    }

    /// Sends what is due through `send`, newcomers first. What was not sent stays due.
    fn speak(
        &mut self,
        view: &View,
        mut send: impl FnMut(u32, LinkAddress, IpAddr) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        self.pending.sort_by_key(|pending| Reverse(pending.left));
        for pending in self.pending.iter_mut().filter(|pending| pending.is_due) {
            let Some(source) = voice(pending.ifindex, view) else {
                continue;
            };
            if self.spoken_for == VIPS_PER_TICK_MAX {
                break;
            }
            self.spoken_for += 1;
            let sent = send(pending.ifindex, source, pending.vip);
            if sent.is_ok() {
                pending.left -= 1;
                pending.is_due = false;
            }
            outcome = outcome.and(sent);
        }
        self.pending.retain(|pending| pending.left > 0);
        outcome
    }
}

/// The address that frames can be sent from.
fn voice(ifindex: u32, view: &View) -> Option<LinkAddress> {
    let link = view.links.get(&ifindex)?;
    link.address.filter(|_| link.is_up && link.has_carrier)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::super::own_vips::tests::{ip, view};
    use super::*;

    /// The VIPs announced in one go.
    fn spoken(queue: &mut Queue, view: &View) -> Vec<IpAddr> {
        let mut spoken = Vec::new();
        let sent = queue.speak(view, |_, _, vip| {
            spoken.push(vip);
            Ok(())
        });
        sent.unwrap();
        spoken
    }

    #[test]
    fn a_vip_is_announced_once_a_second_a_few_times() {
        let (view, vip) = (view(&[]), ip("203.0.113.10"));
        let mut queue = Queue::default();
        queue.start(vip, 2);
        for _ in 0..REPEATS {
            assert_eq!(spoken(&mut queue, &view), [vip]);
            assert_eq!(spoken(&mut queue, &view), [] as [IpAddr; 0]);
            queue.tick();
        }
        assert_eq!(spoken(&mut queue, &view), [] as [IpAddr; 0]);
    }

    #[test]
    fn what_was_not_sent_does_not_count() {
        let up = view(&[]);
        let mut down = up.clone();
        down.links.get_mut(&2).unwrap().has_carrier = false;
        let vip = ip("203.0.113.10");
        let mut queue = Queue::default();
        queue.start(vip, 2);
        for _ in 0..2 * REPEATS {
            assert_eq!(spoken(&mut queue, &down), [] as [IpAddr; 0]);
            queue.speak(&up, |_, _, _| bail!("no buffers")).unwrap_err();
            queue.tick();
        }
        let mut times = 0;
        for _ in 0..2 * REPEATS {
            times += spoken(&mut queue, &up).len();
            queue.tick();
        }
        assert_eq!(times, usize::from(REPEATS));
    }

    #[test]
    fn many_vips_take_their_turns_newcomers_first() {
        let view = view(&[]);
        let vips = |range: std::ops::Range<u32>| range.map(|n| IpAddr::from(n.to_be_bytes()));
        let mut queue = Queue::default();
        vips(0..700).for_each(|vip| queue.start(vip, 2));
        let first = spoken(&mut queue, &view);
        assert_eq!(first.len(), VIPS_PER_TICK_MAX);
        queue.tick();
        let second = spoken(&mut queue, &view);
        assert_eq!(second.len(), VIPS_PER_TICK_MAX);
        let all: BTreeSet<IpAddr> = first.into_iter().chain(second).collect();
        assert_eq!(all, vips(0..700).collect());
    }

    #[test]
    fn a_link_speaks_up_when_it_is_new_comes_up_or_has_another_address() {
        let both = BTreeSet::from([2, 3]);
        let mut view = view(&[]);
        let mut queue = Queue::default();
        assert_eq!(queue.changed_links(&both, &view), both);
        assert_eq!(queue.changed_links(&both, &view), BTreeSet::new());
        view.links.get_mut(&2).unwrap().is_up = false;
        assert_eq!(queue.changed_links(&both, &view), BTreeSet::new());
        view.links.get_mut(&2).unwrap().is_up = true;
        assert_eq!(queue.changed_links(&both, &view), BTreeSet::from([2]));
        view.links.get_mut(&3).unwrap().address = Some([4; 6]);
        assert_eq!(queue.changed_links(&both, &view), BTreeSet::from([3]));
    }
}
