//! Frames for tests: answers, and what looks like them.

use lb_common::abi::LinkRewrite;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::{Conversation, Family, LINK_BYTES, Transport, echo, udp, write_link};
use crate::health::probe::wire::ports::PORT_MIN;

/// A frame, and what it is.
pub(in crate::health::probe::wire) struct Sample {
    pub(in crate::health::probe::wire) name: &'static str,
    pub(in crate::health::probe::wire) family: Family,
    pub(in crate::health::probe::wire) frame: Vec<u8>,
    /// Whether the filter lets it through.
    pub(in crate::health::probe::wire) is_ours: bool,
    /// Whose it is, once it has passed.
    pub(in crate::health::probe::wire) conversation: Conversation,
}

const OUR_PORT: u16 = PORT_MIN + 7;

/// Both families' conversations over each transport.
pub(in crate::health::probe::wire) fn conversations() -> Vec<Conversation> {
    let ends = [
        ("10.0.0.1", "203.0.113.10"),
        ("fd00:10::1", "2001:db8:113::10"),
    ];
    let mut conversations = Vec::new();
    for (ours, vip) in ends {
        for (transport, port) in [
            (Transport::Tcp, 80),
            (Transport::Udp, 53),
            (Transport::Echo, 0),
        ] {
            conversations.push(Conversation {
                transport,
                local: std::net::SocketAddr::new(ours.parse().unwrap(), OUR_PORT),
                remote: std::net::SocketAddr::new(vip.parse().unwrap(), port),
            });
        }
    }
    conversations
}

/// To our Ethernet address, from the backend's.
pub(in crate::health::probe::wire) fn link() -> LinkRewrite {
    LinkRewrite::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9])
}

const DATA: &[u8] = b"an answer of an odd length";

fn turned(conversation: &Conversation) -> Conversation {
    Conversation {
        local: conversation.remote,
        remote: conversation.local,
        ..*conversation
    }
}

/// What the other side says in a conversation.
pub(in crate::health::probe::wire) fn answer(conversation: &Conversation) -> Vec<u8> {
    match conversation.transport {
        Transport::Tcp => segment(conversation),
        Transport::Udp => udp(&turned(conversation), &link(), DATA),
        Transport::Echo => echo_reply(conversation),
    }
}

/// What we have said in it.
fn question(conversation: &Conversation) -> Vec<u8> {
    match conversation.transport {
        Transport::Tcp => segment(&turned(conversation)),
        Transport::Udp => udp(conversation, &link(), DATA),
        Transport::Echo => {
            let is_v4 = conversation.local.is_ipv4();
            let kind = if is_v4 { 8 } else { 128 };
            echo(conversation, &link(), &[kind, 0, 0, 0, 0, 0, 0, 1, 42])
        }
    }
}

fn echo_reply(conversation: &Conversation) -> Vec<u8> {
    let kind = if conversation.local.is_ipv4() { 0 } else { 129 };
    let mut reply = turned(conversation);
    reply.local.set_port(conversation.local.port());
    echo(&reply, &link(), &[kind, 0, 0, 0, 0, 0, 0, 1, 42])
}

fn segment(conversation: &Conversation) -> Vec<u8> {
    let (from, to) = (conversation.remote, conversation.local);
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::None,
        seq_number: TcpSeqNumber(1),
        ack_number: Some(TcpSeqNumber(2)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: DATA,
    };
    let (source, destination) = (from.ip().into(), to.ip().into());
    let length = tcp.buffer_len();
    framed(conversation, IpProtocol::Tcp, length, |l4| {
        tcp.emit(
            &mut TcpPacket::new_unchecked(l4),
            &source,
            &destination,
            &ChecksumCapabilities::default(),
        );
    })
}

/// Somebody could not deliver our question.
pub(in crate::health::probe::wire) fn undelivered(
    conversation: &Conversation,
    kind: u8,
    code: u8,
) -> Vec<u8> {
    let question = question(conversation);
    // As little of it as RFC 792 asks for.
    let quote_bytes = Family::of(conversation.local.ip()).ip_bytes() + 8;
    let quote = &question[LINK_BYTES..LINK_BYTES + quote_bytes];
    let protocol = match Family::of(conversation.local.ip()) {
        Family::V4 => IpProtocol::Icmp,
        Family::V6 => IpProtocol::Icmpv6,
    };
    let length = 8 + quote.len();
    let addresses = IpRepr::new(
        conversation.remote.ip().into(),
        conversation.local.ip().into(),
        protocol,
        length,
        64,
    );
    framed(conversation, protocol, length, |l4| {
        l4[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
        l4[8..].copy_from_slice(quote);
        match &addresses {
            IpRepr::Ipv4(_) => Icmpv4Packet::new_unchecked(l4).fill_checksum(),
            IpRepr::Ipv6(ip) => {
                Icmpv6Packet::new_unchecked(l4).fill_checksum(&ip.src_addr, &ip.dst_addr);
            }
        }
    })
}

fn framed(
    conversation: &Conversation,
    protocol: IpProtocol,
    l4_bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    super::packet(
        &turned(conversation),
        &link(),
        protocol,
        l4_bytes,
        |l4, _| {
            fill(l4);
        },
    )
}

/// All samples: answers, and what must not be taken for any.
pub(in crate::health::probe::wire) fn all() -> Vec<Sample> {
    conversations().iter().flat_map(samples_of).collect()
}

fn samples_of(conversation: &Conversation) -> Vec<Sample> {
    let family = Family::of(conversation.local.ip());
    let sample = |name, is_ours, frame| Sample {
        name,
        family,
        frame,
        is_ours,
        conversation: *conversation,
    };
    let mut foreign = *conversation;
    foreign.local.set_port(PORT_MIN - 1);
    let unreachable = match family {
        Family::V4 => (3, 3),
        Family::V6 => (1, 4),
    };
    let other_family = match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    let mut fragment = answer(conversation);
    match family {
        Family::V4 => fragment[LINK_BYTES + 6] = 0x20,
        // A fragment header in place of what would follow.
        Family::V6 => fragment[LINK_BYTES + 6] = 44,
    }
    let mut other_protocol = answer(conversation);
    match family {
        Family::V4 => other_protocol[LINK_BYTES + 9] = 47,
        Family::V6 => other_protocol[LINK_BYTES + 6] = 47,
    }
    let mut empty = vec![0; LINK_BYTES + 60];
    write_link(&mut empty, &link(), other_family);
    vec![
        sample("an answer", true, answer(conversation)),
        sample(
            "an error",
            true,
            undelivered(conversation, unreachable.0, unreachable.1),
        ),
        sample("an answer to a foreign port", false, answer(&foreign)),
        sample("a fragment", false, fragment),
        sample("another protocol", false, other_protocol),
        sample("nothing", false, empty),
    ]
}
