//! What comes in (RFC 9568 sections 6.4.2, 6.4.3 and 7.1).

use std::net::IpAddr;

use super::Router;
use crate::vrrp::auth::{Kind, Opened};
use crate::vrrp::packet::{Packet, PacketType, Parsed, Path, Refusal, parse, vrid_of};
use crate::vrrp::protocol::{Family, State};
use crate::vrrp::router::{Distrust, Output, US_PER_CS};

/// Between two words about other lists of VIPs, at least: several routers with a list each would be news with every
/// advertisement, and so would one that lies. Unit: microseconds.
const DIFFERS_AGAIN_US: u64 = 60_000_000;

/// A list of VIPs that was told as not ours.
#[derive(Clone, Debug)]
pub(super) struct Differing {
    source: IpAddr,
    /// Sorted.
    addresses: Vec<IpAddr>,
    /// When. Unit: microseconds.
    told_us: u64,
}

/// Whose advertisement, of which priority, with which interval in microseconds.
type Advert = (IpAddr, u8, u64);

impl Router {
    pub(super) fn receive(
        &mut self,
        now_us: u64,
        (source, destination): (IpAddr, IpAddr),
        hop_limit: u8,
        payload: &[u8],
        out: &mut Vec<Output>,
    ) {
        let is_of_another = vrid_of(payload).is_some_and(|vrid| vrid != self.config.vrid);
        if is_of_another || source == self.config.source {
            return;
        }
        let path = Path {
            source,
            destination,
        };
        if let Err(reason) = self.take(now_us, path, hop_limit, payload, out) {
            self.refuse(source, reason, out);
        }
    }

    fn take(
        &mut self,
        now_us: u64,
        path: Path,
        hop_limit: u8,
        payload: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if Family::of(path.source) != self.config.family {
            return Err(Refusal::Family);
        }
        let peers = &self.config.peers;
        if !peers.is_empty() && !peers.contains(&path.source) {
            return Err(Refusal::NotAPeer);
        }
        let parsed = parse(path, hop_limit, payload)?;
        if self.guard.is_some() {
            self.take_authenticated(now_us, path.source, payload, &parsed, out)
        } else if parsed.packet.packet_type == PacketType::Extension {
            Err(Refusal::Type(PacketType::Extension as u8))
        } else {
            if !parsed.trailer.is_empty() {
                self.note_distrust(now_us, path.source, &parsed.packet, Distrust::Signed, out);
            }
            self.checksum = parsed.checksum;
            self.on_advertisement(now_us, path.source, &parsed.packet, None, out);
            Ok(())
        }
    }

    fn take_authenticated(
        &mut self,
        now_us: u64,
        source: IpAddr,
        payload: &[u8],
        parsed: &Parsed<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let Some(guard) = &mut self.guard else {
            return Ok(());
        };
        let opened = match guard.open(now_us, source, payload, parsed) {
            Ok(opened) => opened,
            Err(reason) => {
                self.note_unbelieved(now_us, source, &parsed.packet, reason, out);
                return Err(reason);
            }
        };
        let packets_before = guard.packets();
        let result = if opened.is_proven {
            self.believe(now_us, source, &parsed.packet, &opened, out);
            Ok(())
        } else if opened.kind == Kind::Hello {
            Ok(())
        } else {
            Err(Refusal::Unproven)
        };
        let has_said_something = self
            .guard
            .as_ref()
            .is_some_and(|guard| guard.packets() != packets_before);
        if opened.wants_answer && !has_said_something {
            self.answer_soon(now_us, out);
        }
        result
    }

    fn believe(
        &mut self,
        now_us: u64,
        source: IpAddr,
        packet: &Packet,
        opened: &Opened,
        out: &mut Vec<Output>,
    ) {
        let own = self.guard.as_ref().map(|guard| guard.session());
        let is_for_us = own == Some(opened.target);
        match opened.kind {
            Kind::Advertisement if is_for_us && packet.priority == 0 => {
                self.counters.received += 1;
                self.on_resignation_to_us(now_us, source, opened, out);
            }
            Kind::Advertisement => {
                self.on_advertisement(now_us, source, packet, Some(opened), out);
            }
            Kind::HandOverRequest if is_for_us => self.on_request(now_us, source, opened, out),
            Kind::HandOverDeclined if is_for_us => self.on_declined(now_us, opened, out),
            Kind::Hello | Kind::HandOverRequest | Kind::HandOverDeclined => {}
        }
    }

    fn on_advertisement(
        &mut self,
        now_us: u64,
        source: IpAddr,
        packet: &Packet,
        opened: Option<&Opened>,
        out: &mut Vec<Output>,
    ) {
        self.counters.received += 1;
        self.compare_addresses(now_us, source, packet, out);
        let advert = (
            source,
            packet.priority,
            u64::from(packet.interval_cs) * US_PER_CS,
        );
        if packet.priority != 0 {
            self.end_linger(now_us, source, out);
        }
        match self.state {
            State::Initialize => {}
            State::Backup => self.on_advertisement_in_backup(now_us, advert, out),
            State::Active => {
                let is_first = opened.is_none_or(|opened| opened.flags.is_first);
                self.on_advertisement_in_active(now_us, advert, is_first, out);
            }
        }
    }

    /// RFC 9568 section 6.4.2.
    fn on_advertisement_in_backup(&mut self, now_us: u64, advert: Advert, out: &mut Vec<Output>) {
        let (source, priority, interval_us) = advert;
        if priority == 0 {
            self.on_resignation(now_us, source);
        } else if !self.config.preempt || self.yields || priority >= self.condition.priority {
            self.follow(now_us, source, priority, interval_us);
            self.lower_since_us = None;
        } else {
            self.challenge(now_us, advert, out);
        }
    }

    /// RFC 9568 section 6.4.3.
    fn on_advertisement_in_active(
        &mut self,
        now_us: u64,
        advert: Advert,
        is_first: bool,
        out: &mut Vec<Output>,
    ) {
        let (source, priority, interval_us) = advert;
        if priority == 0 {
            self.answer_resignation(now_us, out);
        } else if self.hand_over.is_some() {
            self.complete_hand_over(now_us, advert, out);
        } else if self.doubt_until_us.is_some() {
            let reason = format!("{source} became Active while this process did not run");
            self.lose(now_us, advert, reason, true, out);
        } else if (priority, source) > (self.condition.priority, self.config.source) {
            let reason = format!("{source} is Active with priority {priority}");
            self.lose(now_us, advert, reason, !is_first, out);
        } else {
            self.note_conflict(now_us, Some(source), priority, 2 * interval_us, out);
            self.disputes.settle();
            self.announce_after_conflict(now_us, out);
            self.answer_soon(now_us, out);
        }
    }

    fn lose(
        &mut self,
        now_us: u64,
        advert: Advert,
        reason: String,
        is_known: bool,
        out: &mut Vec<Output>,
    ) {
        let (source, priority, interval_us) = advert;
        self.note_lost_conflict(now_us, advert, is_known, out);
        self.become_backup(now_us, reason, out);
        self.follow(now_us, source, priority, interval_us);
    }

    /// RFC 9568 section 7.1: a difference may be told, and changes nothing.
    fn compare_addresses(
        &mut self,
        now_us: u64,
        source: IpAddr,
        packet: &Packet,
        out: &mut Vec<Output>,
    ) {
        let mut ours = self.config.listed_vips();
        let mut theirs = packet.addresses.clone();
        ours.sort();
        theirs.sort();
        let is_told = self.differing.as_ref().is_some_and(|told| {
            let is_same = told.source == source && told.addresses == theirs;
            is_same || now_us < told.told_us + DIFFERS_AGAIN_US
        });
        if ours != theirs && !is_told {
            self.differing = Some(Differing {
                source,
                addresses: theirs,
                told_us: now_us,
            });
            out.push(Output::AddressesDiffer {
                source,
                addresses: packet.addresses.clone(),
            });
        }
    }
}
