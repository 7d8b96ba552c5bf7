use std::collections::VecDeque;

use proptest::prelude::*;
use smoltcp::socket::tcp::ConnectError;
use smoltcp::wire::{IpEndpoint, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::*;
use crate::health::probe::wire::frame::Transport;

const MTU: usize = 1500;

fn a_conversation() -> Conversation {
    Conversation {
        transport: Transport::Tcp,
        local: "10.0.0.1:61000".parse().unwrap(),
        remote: "203.0.113.10:80".parse().unwrap(),
    }
}

fn a_connection(now: Instant) -> Connection {
    Connection::new(&a_conversation(), MTU, 7, now).unwrap()
}

/// A server, of the same make.
struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
    ticks: Ticks,
}

impl Server {
    fn listening(receive_bytes: usize) -> Self {
        let mut port = Port {
            mtu_bytes: MTU,
            departing: Vec::new(),
        };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut port.attached(None), Ticks::ZERO);
        let remote = IpEndpoint::from(a_conversation().remote);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(remote.addr, 0)).unwrap());
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; receive_bytes]),
            SocketBuffer::new(vec![0; 100_000]),
        );
        socket.listen(remote).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            interface,
            sockets,
            handle,
            port,
            ticks: Ticks::ZERO,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn advance(&mut self, packet: Option<&[u8]>) -> Vec<Vec<u8>> {
        let mut attached = self.port.attached(packet);
        self.interface
            .poll(self.ticks, &mut attached, &mut self.sockets);
        std::mem::take(&mut self.port.departing)
    }
}

/// A connection, its server, the packets between them, and the time.
struct Lan {
    connection: Connection,
    server: Server,
    to_server: VecDeque<Vec<u8>>,
    to_us: VecDeque<Vec<u8>>,
    now: Instant,
}

impl Lan {
    fn new(server: Server) -> Self {
        let now = Instant::now();
        let mut lan = Self {
            connection: a_connection(now),
            server,
            to_server: VecDeque::new(),
            to_us: VecDeque::new(),
            now,
        };
        lan.advance(None);
        lan
    }

    fn advance(&mut self, packet: Option<&[u8]>) {
        let frames = self.connection.advance(self.now, packet);
        self.to_server.extend(frames);
    }

    /// Carries packets until there are none.
    fn settle(&mut self) {
        loop {
            if let Some(frame) = self.to_server.pop_front() {
                let answers = self.server.advance(Some(&frame[LINK_BYTES..]));
                self.to_us.extend(answers);
            } else if let Some(frame) = self.to_us.pop_front() {
                self.advance(Some(&frame[LINK_BYTES..]));
            } else {
                let sent = self.server.advance(None);
                if sent.is_empty() {
                    return;
                }
                self.to_us.extend(sent);
            }
        }
    }

    /// Lets the time pass until the connection wants to do something.
    fn wait(&mut self) {
        let deadline = self.connection.deadline(self.now).unwrap();
        self.now = deadline.max(self.now + Duration::from_millis(1));
        self.server.ticks = self.connection.ticks(self.now);
        self.advance(None);
    }
}

#[test]
fn a_question_and_a_long_answer() {
    let mut lan = Lan::new(Server::listening(1000));
    assert_eq!(lan.connection.progress(), Progress::Opening);
    assert_eq!(lan.connection.write(b"early"), Step::Wait);
    lan.settle();
    assert_eq!(lan.connection.progress(), Progress::Open);
    assert_eq!(lan.connection.read(&mut [0; 10]), Step::Wait);
    assert_eq!(lan.connection.write(b"question"), Step::Done(8));
    lan.advance(None);
    lan.settle();
    let mut heard = [0; 20];
    assert_eq!(lan.server.socket().recv_slice(&mut heard), Ok(8));

    let answer: Vec<u8> = (0..90_000_u32).map(|n| n as u8).collect();
    assert_eq!(lan.server.socket().send_slice(&answer), Ok(answer.len()));
    lan.server.socket().close();
    let mut read = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match lan.connection.read(&mut buffer) {
            Step::Done(count) => {
                read.extend_from_slice(&buffer[..count]);
                lan.advance(None);
            }
            Step::End => break,
            Step::Wait => {
                lan.advance(None);
                lan.settle();
            }
            Step::Reset => panic!("reset after {} bytes", read.len()),
        }
    }
    assert_eq!(read, answer);
    // The other half is still open, for a farewell.
    assert_eq!(lan.connection.write(b"bye"), Step::Done(3));
    lan.advance(None);
    lan.connection.abort();
    lan.advance(None);
    lan.settle();
    assert_eq!(lan.server.socket().state(), State::Closed);
}

#[test]
fn a_server_that_does_not_read_makes_the_writer_wait() {
    const TAKEN: usize = 2000;
    let mut lan = Lan::new(Server::listening(TAKEN));
    lan.settle();
    let mut written = 0;
    for _ in 0..100 {
        match lan.connection.write(&[0; 1000]) {
            Step::Done(count) => written += count,
            step => assert_eq!(step, Step::Wait),
        }
        lan.advance(None);
        lan.settle();
    }
    assert!(
        (SEND_BYTES..=SEND_BYTES + TAKEN).contains(&written),
        "{written}"
    );
    let taken = lan.server.socket().recv_slice(&mut [0; TAKEN]);
    assert!(taken.is_ok_and(|taken| taken > 0), "{taken:?}");
    lan.settle();
    assert!(matches!(lan.connection.write(&[0; 1000]), Step::Done(_)));
}

#[test]
fn what_is_lost_is_sent_again() {
    let mut lan = Lan::new(Server::listening(1000));
    lan.to_server.clear();
    lan.wait();
    lan.settle();
    assert_eq!(
        lan.connection.progress(),
        Progress::Open,
        "the SYN was lost"
    );
    lan.connection.write(b"question");
    lan.advance(None);
    lan.to_server.clear();
    lan.wait();
    lan.settle();
    assert_eq!(lan.server.socket().recv_slice(&mut [0; 20]), Ok(8));
}

#[test]
fn a_closed_port_refuses_and_an_end_is_told_from_a_reset() {
    let mut server = Server::listening(1000);
    server.socket().abort();
    let mut lan = Lan::new(server);
    lan.settle();
    assert_eq!(lan.connection.progress(), Progress::Refused);
    assert_eq!(lan.connection.read(&mut [0; 1]), Step::Reset);
    assert_eq!(lan.connection.write(b"x"), Step::Reset);
    assert_eq!(lan.connection.deadline(lan.now), None);

    let mut lan = Lan::new(Server::listening(1000));
    lan.settle();
    lan.server.socket().send_slice(b"last words").unwrap();
    lan.settle();
    lan.server.socket().abort();
    lan.settle();
    assert_eq!(lan.connection.progress(), Progress::Reset);
    let mut buffer = [0; 20];
    assert_eq!(lan.connection.read(&mut buffer), Step::Done(10));
    assert_eq!(lan.connection.read(&mut buffer), Step::Reset);
}

#[test]
fn segments_fit_the_interface_and_have_few_hops() {
    let mut lan = Lan::new(Server::listening(10_000));
    let syn = lan.to_server.front().unwrap().clone();
    let ip = Ipv4Packet::new_checked(&syn[LINK_BYTES..]).unwrap();
    assert_eq!(ip.hop_limit(), HOP_LIMIT);
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    assert!(ip.verify_checksum() && tcp.verify_checksum(&source, &destination));
    let all = smoltcp::phy::ChecksumCapabilities::default();
    let repr = TcpRepr::parse(&tcp, &source, &destination, &all).unwrap();
    assert_eq!(repr.max_seg_size, Some(MTU as u16 - 40));
    lan.settle();
    lan.connection.write(&[0; SEND_BYTES]);
    lan.advance(None);
    assert!(lan.to_server.len() >= 3);
    for frame in &lan.to_server {
        assert!(frame.len() <= LINK_BYTES + MTU, "{}", frame.len());
    }
}

#[test]
fn what_is_answered_at_once_has_few_hops_too() {
    let mut lan = Lan::new(Server::listening(1000));
    let syn = lan.to_server.pop_front().unwrap();
    let syn_ack = lan.server.advance(Some(&syn[LINK_BYTES..])).remove(0);
    lan.advance(Some(&syn_ack[LINK_BYTES..]));
    lan.to_server.clear();
    // Our acknowledgement was lost.
    lan.advance(Some(&syn_ack[LINK_BYTES..]));
    let answer = lan.to_server.pop_front().unwrap();
    let ip = Ipv4Packet::new_checked(&answer[LINK_BYTES..]).unwrap();
    assert_eq!(ip.hop_limit(), HOP_LIMIT);
    assert!(ip.verify_checksum());
    lan.settle();
    assert_eq!(lan.connection.progress(), Progress::Open);
}

#[test]
fn a_conversation_with_nobody_is_refused() {
    let nobody = Conversation {
        remote: "0.0.0.0:80".parse().unwrap(),
        ..a_conversation()
    };
    let why = Connection::new(&nobody, MTU, 7, Instant::now())
        .err()
        .unwrap();
    assert!(
        why.contains(&ConnectError::Unaddressable.to_string()),
        "{why}"
    );
}

/// A segment that anybody might send: with our ports, and numbers near those that are right, or not.
#[derive(Clone, Debug)]
struct Forged {
    control: TcpControl,
    sequence: i32,
    acknowledged: Option<i32>,
    is_near: bool,
    window: u16,
    scale: Option<u8>,
    segment_max: Option<u16>,
    payload_bytes: usize,
    is_read: bool,
    is_written: bool,
    elapsed_ms: u64,
}

fn forged() -> impl Strategy<Value = Forged> {
    let control = prop_oneof![
        4 => Just(TcpControl::None),
        1 => Just(TcpControl::Syn),
        1 => Just(TcpControl::Fin),
        1 => Just(TcpControl::Psh),
        1 => Just(TcpControl::Rst),
    ];
    let near = prop_oneof![3 => -20..20_i32, 1 => -70_000..70_000_i32, 1 => any::<i32>()];
    let numbers = (
        near.clone(),
        proptest::option::weighted(0.9, near),
        any::<bool>(),
    );
    let sizes = (
        any::<u16>(),
        proptest::option::of(0..15_u8),
        proptest::option::of(any::<u16>()),
        0..3000_usize,
    );
    (control, numbers, sizes, any::<(bool, bool)>(), 0..3000_u64).prop_map(
        |(control, numbers, sizes, deeds, elapsed_ms)| Forged {
            control,
            sequence: numbers.0,
            acknowledged: numbers.1,
            is_near: numbers.2,
            window: sizes.0,
            scale: sizes.1,
            segment_max: sizes.2,
            payload_bytes: sizes.3,
            is_read: deeds.0,
            is_written: deeds.1,
            elapsed_ms,
        },
    )
}

/// The last numbers of ours, so that forged ones can be near to what is right.
#[derive(Clone, Copy)]
struct Numbers {
    sequence: TcpSeqNumber,
    acknowledged: TcpSeqNumber,
}

fn numbers_of(frame: &[u8]) -> Numbers {
    let ip = Ipv4Packet::new_checked(&frame[LINK_BYTES..]).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    Numbers {
        sequence: tcp.seq_number() + ip.payload().len() - usize::from(tcp.header_len())
            + usize::from(tcp.syn()),
        acknowledged: if tcp.ack() {
            tcp.ack_number()
        } else {
            TcpSeqNumber(1000)
        },
    }
}

fn packet(forged: &Forged, numbers: Numbers) -> Vec<u8> {
    let near = |base: TcpSeqNumber, offset: i32| match forged.is_near {
        true => TcpSeqNumber(base.0.wrapping_add(offset)),
        false => TcpSeqNumber(offset),
    };
    let payload = vec![0; forged.payload_bytes];
    let tcp = TcpRepr {
        src_port: a_conversation().remote.port(),
        dst_port: a_conversation().local.port(),
        control: forged.control,
        seq_number: near(numbers.acknowledged, forged.sequence),
        ack_number: forged.acknowledged.map(|one| near(numbers.sequence, one)),
        window_len: forged.window,
        window_scale: forged.scale,
        max_seg_size: forged.segment_max,
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &payload,
    };
    let (from, to) = (a_conversation().remote, a_conversation().local);
    let (source, destination) = (from.ip().into(), to.ip().into());
    let ip = IpRepr::new(
        source,
        destination,
        smoltcp::wire::IpProtocol::Tcp,
        tcp.buffer_len(),
        64,
    );
    let mut bytes = vec![0; ip.header_len() + tcp.buffer_len()];
    let all = smoltcp::phy::ChecksumCapabilities::default();
    let (head, l4) = bytes.split_at_mut(ip.header_len());
    ip.emit(head, &all);
    tcp.emit(
        &mut TcpPacket::new_unchecked(l4),
        &source,
        &destination,
        &all,
    );
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever comes and whenever, nothing panics, what is sent in answer to a packet is bounded, and time
    /// alone never makes it send without end.
    #[test]
    fn whatever_a_server_sends_costs_little(
        segments in proptest::collection::vec(forged(), 1..40),
        is_honest_at_first: bool,
    ) {
        let mut lan = Lan::new(Server::listening(5_000));
        let mut numbers = numbers_of(lan.to_server.front().unwrap());
        if is_honest_at_first {
            let syn = lan.to_server.pop_front().unwrap();
            let answers = lan.server.advance(Some(&syn[LINK_BYTES..]));
            lan.advance(Some(&answers[0][LINK_BYTES..]));
            if let Some(ack) = lan.to_server.front() {
                numbers = numbers_of(ack);
            }
        }
        for one in &segments {
            lan.now += Duration::from_millis(one.elapsed_ms);
            lan.to_server.clear();
            lan.advance(Some(&packet(one, numbers)));
            if one.is_written {
                lan.connection.write(&[0; 2000]);
            }
            if one.is_read {
                lan.connection.read(&mut [0; 5000]);
            }
            lan.advance(None);
            let bytes: usize = lan.to_server.iter().map(Vec::len).sum();
            let frames = lan.to_server.len();
            // With the smallest segments that smoltcp agrees to.
            prop_assert!(bytes <= 3 * SEND_BYTES * 2 && frames <= 200, "{frames} frames, {bytes} bytes");
            if let Some(last) = lan.to_server.back() {
                numbers = numbers_of(last);
            }
        }
        // A minute of waiting.
        let end = lan.now + Duration::from_secs(60);
        let mut waits = 0;
        while lan.now < end && lan.connection.deadline(lan.now).is_some() {
            lan.wait();
            waits += 1;
            prop_assert!(waits < 1000, "it keeps the thread busy");
        }
    }
}
