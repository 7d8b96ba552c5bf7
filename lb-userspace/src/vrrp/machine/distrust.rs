//! Somebody advertises this virtual router and does not authenticate as this node does: another secret, or another
//! `authenticate`. Neither believes the other, so both may be Active, and no rule ends that: people have to know.

use std::net::IpAddr;

use super::{PRIORITY_RESIGNS, Router};
use crate::vrrp::packet::{Packet, PacketType, Refusal};
use crate::vrrp::router::{Distrust, Output, US_PER_CS};

/// Without such an advertisement for so long, it is over: so many intervals, and at least [`QUIET_MIN_US`].
const QUIET_INTERVALS: u64 = 4;
/// Unit: microseconds.
const QUIET_MIN_US: u64 = 2_000_000;
/// It is said again so often while it lasts. Unit: microseconds.
const AGAIN_US: u64 = 60_000_000;

/// From the first such advertisement on. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    source: IpAddr,
    why: Distrust,
    until_us: u64,
    told_us: u64,
}

impl Router {
    /// A packet that was not believed: if it is an advertisement of somebody who authenticates in another way.
    pub(super) fn note_unbelieved(
        &mut self,
        now_us: u64,
        source: IpAddr,
        packet: &Packet,
        reason: Refusal,
        out: &mut Vec<Output>,
    ) {
        let why = match reason {
            Refusal::Code => Distrust::OtherSecret,
            Refusal::NoTrailer => Distrust::Unsigned,
            Refusal::TrailerVersion(_) => Distrust::OtherVersion,
            // It may be a recording, or damaged.
            _ => return,
        };
        self.note_distrust(now_us, source, packet, why, out);
    }

    /// An advertisement of somebody who does not believe this node.
    pub(super) fn note_distrust(
        &mut self,
        now_us: u64,
        source: IpAddr,
        packet: &Packet,
        why: Distrust,
        out: &mut Vec<Output>,
    ) {
        let is_active =
            packet.packet_type == PacketType::Advertisement && packet.priority != PRIORITY_RESIGNS;
        if !is_active {
            return;
        }
        let interval_us = self
            .config
            .interval_us()
            .max(u64::from(packet.interval_cs) * US_PER_CS);
        let former = self.distrust.filter(|former| now_us < former.until_us);
        let told_us = former.map(|former| former.told_us);
        let is_time = told_us.is_none_or(|told_us| now_us >= told_us + AGAIN_US);
        self.distrust = Some(Episode {
            source,
            why,
            until_us: now_us + (QUIET_INTERVALS * interval_us).max(QUIET_MIN_US),
            told_us: told_us.filter(|_| !is_time).unwrap_or(now_us),
        });
        if is_time {
            out.push(Output::Distrusted { source, why });
        }
    }

    /// Who advertises and is not believed, or does not believe, in words; `None` = nobody.
    pub(super) fn distrusted(&self, now_us: u64) -> Option<String> {
        let episode = self.distrust.filter(|episode| now_us < episode.until_us)?;
        Some(episode.why.about(episode.source))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_kit::*;
    use crate::vrrp::auth::Key;
    use crate::vrrp::protocol::State;
    use crate::vrrp::router::{Distrust, Output, RouterConfig};

    fn with_key(last: u8, key: Option<Key>) -> RouterConfig {
        RouterConfig {
            key,
            ..config(last, 100 + last)
        }
    }

    /// What another Active says in an interval.
    fn advertisement_of(bench: &mut Bench) -> Vec<u8> {
        let out = bench.run_for(SECOND);
        let sent = out.into_iter().find_map(|output| match output {
            Output::Send { payload, .. } => Some(payload),
            _ => None,
        });
        sent.expect("an advertisement each second")
    }

    fn distrusted(out: &[Output]) -> Vec<Distrust> {
        let words = out.iter().filter_map(|output| match output {
            Output::Distrusted { why, .. } => Some(*why),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn two_actives_that_do_not_believe_each_other_say_so() {
        let other = Some(Key::new([8; 32]));
        let cases = [
            (Some(KEY), other, Distrust::OtherSecret, "another secret"),
            (
                Some(KEY),
                None,
                Distrust::Unsigned,
                "without authentication",
            ),
            (None, Some(KEY), Distrust::Signed, "this node does not"),
        ];
        for (own, theirs, why, words) in cases {
            // The other one has the lower priority, so that nobody gives way.
            let mut bench = Bench::active(with_key(2, own));
            let mut stranger = Bench::active(with_key(1, theirs));
            let mut told = Vec::new();
            for _ in 0..50 {
                let packet = advertisement_of(&mut stranger);
                bench.run_for(SECOND);
                told.extend(distrusted(&bench.receive(1, &packet)));
                assert_eq!(bench.router.state(), State::Active);
                let text = bench.router.status(bench.now, 0).distrusted.unwrap();
                assert!(text.contains(words) && text.contains("10.0.0.1"), "{text}");
            }
            assert_eq!(told, [why], "once a minute");
            bench.run_for(10 * SECOND);
            let packet = advertisement_of(&mut stranger);
            assert_eq!(bench.router.status(bench.now, 0).distrusted, None);
            assert_eq!(distrusted(&bench.receive(1, &packet)), [why], "anew");
        }
    }

    #[test]
    fn those_who_get_to_know_each_other_and_recordings_are_no_matter() {
        let mut bench = Bench::active(with_key(2, Some(KEY)));
        let mut peer = Bench::active(with_key(1, Some(KEY)));
        let packet = advertisement_of(&mut peer);
        for _ in 0..2 {
            bench.receive(1, &packet);
            assert_eq!(bench.router.status(bench.now, 0).distrusted, None);
        }
        assert!(bench.router.status(bench.now, 0).counters.unauthentic > 0);
    }
}
