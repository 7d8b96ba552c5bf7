//! Test frames, built by an independent library with checksums from scratch.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel,
    Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};

/// TCP flags of a test segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// SYN.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK.
    Ack,
    /// FIN and ACK.
    FinAck,
    /// RST.
    Rst,
    /// RST and ACK.
    RstAck,
}

/// The transport of a test frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags.
    Tcp(Flags),
    /// UDP.
    Udp,
    /// UDP without a checksum (legal over IPv4).
    UdpUnchecked,
    /// ICMP (v4 or v6) echo request.
    Echo,
}

impl Transport {
    /// Whether it is TCP with RST.
    pub fn is_reset(self) -> bool {
        matches!(self, Self::Tcp(Flags::Rst | Flags::RstAck))
    }
}

/// A test frame, field by field. `bytes` writes it out.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Destination Ethernet address.
    pub to_mac: [u8; 6],
    /// Source Ethernet address.
    pub from_mac: [u8; 6],
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// What is carried.
    pub transport: Transport,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's acknowledgement number.
    pub acknowledgement: u32,
    /// TCP's window.
    pub window: u16,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of IPv4 options (a multiple of 4, at most 40).
    pub ipv4_options: Vec<u8>,
    /// IPv4: (offset in units of 8 bytes, more fragments).
    pub ipv4_fragment: (u16, bool),
    /// IPv6 extension headers: (type, body), each body 6 + 8·n bytes.
    pub ipv6_extensions: Vec<(u8, Vec<u8>)>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// The client's Ethernet address, or its router's.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0xcc, 0, 1];

impl Frame {
    /// A frame from a client to the balancer.
    pub fn new(
        source: IpAddr,
        source_port: u16,
        destination: IpAddr,
        destination_port: u16,
        transport: Transport,
    ) -> Self {
        Self {
            to_mac: super::world::LB_MAC,
            from_mac: CLIENT_MAC,
            vlans: Vec::new(),
            source,
            destination,
            source_port,
            destination_port,
            transport,
            sequence: 0x1234_5678,
            acknowledgement: 0,
            window: 65_000,
            ttl: 64,
            ipv4_options: Vec::new(),
            ipv4_fragment: (0, false),
            ipv6_extensions: Vec::new(),
            payload: b"hello, backend".to_vec(),
        }
    }

    /// The same frame one hop on: new Ethernet addresses, and the time to live decremented.
    pub fn next_hop(&self, to_mac: [u8; 6], from_mac: [u8; 6]) -> Self {
        Self {
            to_mac,
            from_mac,
            ttl: self.ttl - 1,
            ..self.clone()
        }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.link();
        let l4 = self.l4();
        let mut l3 = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    l4.len() as u16,
                    self.ttl,
                    IpNumber(self.protocol()),
                    source.octets(),
                    destination.octets(),
                )
                .expect("a short payload");
                header.options = Ipv4Options::try_from(&self.ipv4_options[..]).expect("options");
                header.set_payload_len(l4.len()).expect("a short payload");
                header.fragment_offset =
                    IpFragOffset::try_new(self.ipv4_fragment.0).expect("13 bits");
                header.more_fragments = self.ipv4_fragment.1;
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions = self.extension_bytes();
                let first = self
                    .ipv6_extensions
                    .first()
                    .map_or(self.protocol(), |(kind, _)| *kind);
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: (extensions.len() + l4.len()) as u16,
                    next_header: IpNumber(first),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [header.to_bytes().to_vec(), extensions].concat()
            }
            _ => panic!(
                "one family a frame: {} to {}",
                self.source, self.destination
            ),
        };
        bytes.append(&mut l3);
        bytes.extend(l4);
        bytes
    }

    /// IP protocol number of the transport.
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp | Transport::UdpUnchecked => 17,
            Transport::Echo if self.source.is_ipv4() => 1,
            Transport::Echo => 58,
        }
    }

    fn link(&self) -> Vec<u8> {
        let l3_type = if self.source.is_ipv4() {
            EtherType::IPV4
        } else {
            EtherType::IPV6
        };
        let type_after = |depth: usize| match self.vlans.len() {
            count if depth < count => EtherType::VLAN_TAGGED_FRAME,
            _ => l3_type,
        };
        let eth = Ethernet2Header {
            source: self.from_mac,
            destination: self.to_mac,
            ether_type: type_after(0),
        };
        let mut bytes = eth.to_bytes().to_vec();
        for (depth, vlan) in (1..).zip(&self.vlans) {
            let tag = SingleVlanHeader {
                pcp: Default::default(),
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(*vlan).expect("12 bits"),
                ether_type: type_after(depth),
            };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (position, (_, body)) in self.ipv6_extensions.iter().enumerate() {
            let next = self
                .ipv6_extensions
                .get(position + 1)
                .map_or(self.protocol(), |(kind, _)| *kind);
            assert!(
                body.len() >= 6 && body.len() % 8 == 6,
                "an extension is a multiple of 8 bytes"
            );
            bytes.push(next);
            bytes.push((body.len() / 8) as u8);
            bytes.extend(body);
        }
        bytes
    }

    fn l4(&self) -> Vec<u8> {
        if self.ipv4_fragment.0 != 0 {
            return self.payload.clone();
        }
        let header = match self.transport {
            Transport::Tcp(flags) => self.tcp(flags),
            Transport::Udp => self.udp(),
            Transport::UdpUnchecked => {
                let mut header = self.udp();
                header[6..8].fill(0);
                header
            }
            Transport::Echo => vec![
                if self.source.is_ipv4() { 8 } else { 128 },
                0,
                0,
                0,
                0,
                1,
                0,
                1,
            ],
        };
        [header, self.payload.clone()].concat()
    }

    fn tcp(&self, flags: Flags) -> Vec<u8> {
        let mut header = TcpHeader::new(
            self.source_port,
            self.destination_port,
            self.sequence,
            self.window,
        );
        header.acknowledgment_number = self.acknowledgement;
        header.syn = matches!(flags, Flags::Syn | Flags::SynAck);
        header.ack = matches!(
            flags,
            Flags::SynAck | Flags::Ack | Flags::FinAck | Flags::RstAck
        );
        header.fin = flags == Flags::FinAck;
        header.rst = matches!(flags, Flags::Rst | Flags::RstAck);
        header.checksum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            _ => unreachable!("checked in bytes()"),
        }
        .expect("a short payload");
        header.to_bytes().to_vec()
    }

    fn udp(&self) -> Vec<u8> {
        let header = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip =
                    Ipv4Header::new(0, 0, IpNumber::UDP, source.octets(), destination.octets());
                let ip = ip.expect("an empty payload");
                UdpHeader::with_ipv4_checksum(
                    self.source_port,
                    self.destination_port,
                    &ip,
                    &self.payload,
                )
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ip = Ipv6Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                UdpHeader::with_ipv6_checksum(
                    self.source_port,
                    self.destination_port,
                    &ip,
                    &self.payload,
                )
            }
            _ => unreachable!("checked in bytes()"),
        };
        header.expect("a short payload").to_bytes().to_vec()
    }
}
