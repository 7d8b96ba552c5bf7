//! Announcements of VIPs, repeated: a frame can get lost, and a switch may be slow to forward.

use std::net::IpAddr;

use tracing::warn;

use crate::netlink::announce::announce;
use crate::netlink::view::View;

/// How often a VIP is announced, a second apart.
const REPEATS: u8 = 4;

/// What is still to be announced.
#[derive(Debug, Default)]
pub(super) struct Announcer(Vec<Pending>);

#[derive(Debug)]
struct Pending {
    vip: IpAddr,
    ifindex: u32,
    left: u8,
}

impl Announcer {
    /// Announces a VIP that was just added, now and a few times more.
    pub(super) fn start(&mut self, vip: IpAddr, ifindex: u32, view: &View) {
        self.stop(vip);
        send(vip, ifindex, view);
        self.0.push(Pending {
            vip,
            ifindex,
            left: REPEATS - 1,
        });
    }

    /// Announces it no more.
    pub(super) fn stop(&mut self, vip: IpAddr) {
        self.0.retain(|pending| pending.vip != vip);
    }

    /// Repeats what is due. To be called once a second.
    pub(super) fn repeat(&mut self, view: &View) {
        for pending in &mut self.0 {
            send(pending.vip, pending.ifindex, view);
            pending.left -= 1;
        }
        self.0.retain(|pending| pending.left > 0);
    }
}

/// A VIP that could not be announced is still found by whoever asks for it: this is no failure.
fn send(vip: IpAddr, ifindex: u32, view: &View) {
    let link = view.links.get(&ifindex).filter(|link| link.is_up);
    let Some(source) = link.and_then(|link| link.address) else {
        return;
    };
    if let Err(error) = announce(ifindex, source, vip) {
        warn!("{error:#}");
    }
}
