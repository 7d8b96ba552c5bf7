//! Frames of the self-test: the smallest that are valid in every checksum.

use std::net::IpAddr;

use lb_common::abi::LinkRewrite;

/// Ethernet addresses of the client's side and of the balancer: locally administered.
const CLIENT_LINK: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
const BALANCER_LINK: [u8; 6] = [2, 0, 0, 0, 0, 0x1b];

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const HOPS: u8 = 64;

/// TCP's control bits.
pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;

/// An address with a port.
pub(super) type Endpoint = (IpAddr, u16);

/// A TCP segment without data. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) flags: u8,
    pub(super) sequence: u32,
}

impl Segment {
    /// The frame, as a client's router would send it to the balancer.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = [BALANCER_LINK, CLIENT_LINK].concat();
        match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                let total_len = (IPV4_LEN + TCP_LEN) as u16;
                let mut header = vec![0x45, 0];
                header.extend(total_len.to_be_bytes());
                header.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = !sum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(header);
            }
            (source, destination) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((TCP_LEN as u16).to_be_bytes());
                frame.extend([TCP, HOPS]);
                frame.extend(octets(source));
                frame.extend(octets(destination));
            }
        }
        let mut tcp = Vec::with_capacity(TCP_LEN);
        tcp.extend(self.source.1.to_be_bytes());
        tcp.extend(self.destination.1.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend([0x50, self.flags, 0x20, 0, 0, 0, 0, 0]);
        let checksum = !sum(&self.covered(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(tcp);
        frame
    }

    /// Pseudo-header and segment (RFC 9293 section 3.1).
    fn covered(&self, tcp: &[u8]) -> Vec<u8> {
        let mut covered = octets(self.source.0);
        covered.extend(octets(self.destination.0));
        covered.extend([0, TCP]);
        covered.extend((tcp.len() as u16).to_be_bytes());
        covered.extend(tcp);
        covered
    }

    /// Reads a frame of the same form; `None` if it is another, or a checksum is wrong.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let kind = u16::from_be_bytes(*frame.get(ETHERNET_LEN - 2..)?.first_chunk()?);
        let packet = frame.get(ETHERNET_LEN..)?;
        let (source, destination, tcp) = match kind {
            0x0800 if sum(packet.get(..IPV4_LEN)?) == 0xffff => {
                let address =
                    |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
                (address(12)?, address(16)?, packet.get(IPV4_LEN..)?)
            }
            0x86dd => {
                let address =
                    |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
                (address(8)?, address(24)?, packet.get(IPV6_LEN..)?)
            }
            _ => return None,
        };
        let word = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let segment = Self {
            source: (source, word(0)?),
            destination: (destination, word(2)?),
            flags: *tcp.get(13)?,
            sequence: u32::from(word(4)?) << 16 | u32::from(word(6)?),
        };
        (sum(&segment.covered(tcp)) == 0xffff).then_some(segment)
    }
}

/// The Ethernet addresses of a frame.
pub(super) fn link(frame: &[u8]) -> Option<LinkRewrite> {
    let octets: &[u8; 12] = frame.first_chunk()?;
    let (destination, source) = octets.split_at(6);
    Some(LinkRewrite::new(
        destination.try_into().ok()?,
        source.try_into().ok()?,
    ))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The ones' complement sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(high) << 8 | u32::from(low),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(source: &str, destination: &str) -> Segment {
        Segment {
            source: (source.parse().unwrap(), 40_000),
            destination: (destination.parse().unwrap(), 80),
            flags: SYN,
            sequence: 0x0123_4567,
        }
    }

    #[test]
    fn frames_are_read_back_and_damage_is_seen() {
        for segment in [
            segment("192.0.2.1", "192.0.2.2"),
            segment("100::1", "100::2"),
        ] {
            let frame = segment.frame();
            assert_eq!(Segment::parse(&frame), Some(segment));
            assert_eq!(
                link(&frame),
                Some(LinkRewrite::new(BALANCER_LINK, CLIENT_LINK))
            );
            let mut damaged = frame.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(Segment::parse(&damaged), None);
            assert_eq!(Segment::parse(&frame[..frame.len() - 8]), None);
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }
}
