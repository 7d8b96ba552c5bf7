//! Links between nodes on the loopback interface, with real sockets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;

use lb_common::abi::{FlowRecord, FlowState};
use tokio::time::timeout;

use super::room::FRAMES_MAX;
use super::*;
use crate::model::cluster::Peer;
use crate::sync::datagram::{DatagramKey, Sealer};
use crate::sync::hello::{Hello, VERSION};
use crate::sync::replicate::dictionary::{BackendEndpoint, Dictionary, ServiceEndpoint};
use crate::sync::replicate::memory::MemoryTable;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT_MS: u32 = 20;

struct Node {
    name: &'static str,
    handle: LinksHandle,
    events: mpsc::Receiver<LinkEvent>,
}

/// An address that was free just now.
fn free_address(ip: &str) -> SocketAddr {
    let any = format!("{ip}:0");
    loop {
        let socket = UdpSocket::bind(&any).expect("an address");
        let address = socket.local_addr().expect("an address");
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn config(listen: SocketAddr, peers: &[(&str, SocketAddr)]) -> Cluster {
    let peers = peers.iter().map(|(name, address)| {
        let name = (*name).to_owned();
        let peer = Peer {
            name: name.clone(),
            address: *address,
        };
        (name, peer)
    });
    Cluster {
        listen,
        secret_file: PathBuf::new(),
        heartbeat_ms: HEARTBEAT_MS,
        patience_s: 120,
        peers: BTreeMap::from_iter(peers),
    }
}

fn introduction(name: &str) -> Introduction {
    Introduction {
        software: format!("software of {name}"),
        started_unix_ms: 1,
        hash_key_fingerprint: 2,
    }
}

impl Node {
    fn start(name: &'static str, secret: u8, config: &Cluster) -> Self {
        let secret = Secret::from_bytes(&[secret; 32]).expect("a secret");
        let (handle, events) =
            Links::start(config, name, &secret, introduction(name)).expect("the address");
        Self {
            name,
            handle,
            events,
        }
    }

    async fn event(&mut self) -> LinkEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event
            .unwrap_or_else(|_| panic!("{} waits in vain: {:?}", self.name, self.handle.status()))
            .expect("the links go on")
    }

    /// The next event for which this holds; others are dropped.
    async fn expect(&mut self, mut is_it: impl FnMut(&LinkEvent) -> bool) -> LinkEvent {
        loop {
            let event = self.event().await;
            if is_it(&event) {
                return event;
            }
        }
    }

    async fn expect_up(&mut self, name: &str) {
        let up = self
            .expect(|event| matches!(event, LinkEvent::Up { .. }))
            .await;
        let (peer, introduction) = (name.to_owned(), introduction(name));
        let version = VERSION;
        assert_eq!(
            up,
            LinkEvent::Up {
                peer,
                version,
                introduction
            }
        );
    }

    async fn expect_down(&mut self) -> DownReason {
        let down = self
            .expect(|event| matches!(event, LinkEvent::Down { .. }))
            .await;
        match down {
            LinkEvent::Down { reason, .. } => reason,
            _ => unreachable!("it was looked for"),
        }
    }

    /// Waits until the status is so.
    async fn until(&self, mut is_so: impl FnMut(&LinksStatus) -> bool) -> LinksStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.handle.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: {status:#?}", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn last_error(status: &LinksStatus) -> &str {
    status.peers[0].last_error.as_deref().unwrap_or_default()
}

/// Two nodes that know each other, on this address.
async fn pair(ip: &str) -> (Node, Node) {
    let (a, b) = (free_address(ip), free_address(ip));
    let mut one = Node::start("lb1", 1, &config(a, &[("lb2", b)]));
    let mut other = Node::start("lb2", 1, &config(b, &[("lb1", a)]));
    one.expect_up("lb2").await;
    other.expect_up("lb1").await;
    (one, other)
}

#[tokio::test]
async fn frames_datagrams_and_heartbeats_arrive_over_ipv4_and_ipv6() {
    for ip in ["127.0.0.1", "[::1]"] {
        let (one, mut other) = pair(ip).await;
        one.handle.set_heartbeat(b"active".to_vec()).expect("short");
        let long = vec![7; FRAME_MAX_BYTES];
        for bytes in [b"first".to_vec(), long.clone()] {
            one.handle.send("lb2", 2000, bytes).expect("up");
        }
        for expected in [b"first".to_vec(), long] {
            let frame = other
                .expect(|event| matches!(event, LinkEvent::Frame { .. }))
                .await;
            let LinkEvent::Frame { peer, kind, bytes } = frame else {
                unreachable!("it was looked for");
            };
            assert_eq!((peer.as_str(), kind), ("lb1", 2000));
            assert_eq!(*bytes, *expected);
        }
        let datagram = b"datagram".to_vec();
        one.handle.send_datagram("lb2", 2001, datagram).expect("up");
        let mut missing = [true; 2];
        while missing != [false; 2] {
            match other.event().await {
                LinkEvent::Datagram { bytes, kind, .. } => {
                    assert_eq!((kind, bytes), (2001, b"datagram".to_vec()));
                    missing[0] = false;
                }
                LinkEvent::Heartbeat { payload, .. } if payload == b"active" => missing[1] = false,
                LinkEvent::Heartbeat { .. } => (),
                event => panic!("{event:?}"),
            }
        }
        let status = one.until(|status| status.peers[0].rtt_us.is_some()).await;
        assert!(status.peers[0].is_up && status.peers[0].sent.frames == 2);
        one.handle.shutdown().await;
        assert_eq!(other.expect_down().await, DownReason::Goodbye);
        other.handle.shutdown().await;
    }
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again_whichever_it_is() {
    let (a, b) = (free_address("127.0.0.1"), free_address("127.0.0.1"));
    let configs = [config(a, &[("lb2", b)]), config(b, &[("lb1", a)])];
    let mut one = Node::start("lb1", 1, &configs[0]);
    for _ in 0..3 {
        let mut other = Node::start("lb2", 1, &configs[1]);
        one.expect_up("lb2").await;
        other.expect_up("lb1").await;
        other.handle.shutdown().await;
        assert_eq!(one.expect_down().await, DownReason::Goodbye);
    }
    let mut other = Node::start("lb2", 1, &configs[1]);
    other.expect_up("lb1").await;
    one.handle.shutdown().await;
    let mut one = Node::start("lb1", 1, &configs[0]);
    one.expect_up("lb2").await;
    let status = one.handle.status();
    assert_eq!(status.peers[0].sessions, 1, "since it began");
    one.handle.shutdown().await;
    other.handle.shutdown().await;
}

#[tokio::test]
async fn another_secret_an_unknown_name_and_a_wrong_one_are_refused_on_both_sides() {
    let (a, b) = (free_address("127.0.0.1"), free_address("127.0.0.1"));
    let one = Node::start("lb1", 1, &config(a, &[("lb2", b)]));
    let other = Node::start("lb2", 2, &config(b, &[("lb1", a)]));
    let text = "another [cluster] secret_file";
    one.until(|status| last_error(status).contains(text)).await;
    let text = "another secret: [cluster] secret_file";
    let status = other
        .until(|status| last_error(status).contains(text))
        .await;
    assert!(status.peers[0].refused_sessions > 0 && !status.peers[0].is_up);
    other.handle.shutdown().await;

    let other = Node::start("lb3", 1, &config(b, &[("lb1", a)]));
    let text = "the node calls itself \"lb3\", and [[cluster.peer]] expects lb2";
    one.until(|status| last_error(status).contains(text)).await;
    other.handle.shutdown().await;

    let other = Node::start("lb2", 1, &config(b, &[("lb0", a)]));
    let text = "no [[cluster.peer]] \"lb1\"";
    one.until(|status| last_error(status).contains(text)).await;
    other.until(|status| status.refused_connections > 0).await;
    assert_eq!(
        one.handle.send("lb2", 2000, Vec::new()),
        Err(SendError::Down("lb2".to_owned()))
    );
    other.handle.shutdown().await;
    one.handle.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_the_reason() {
    let (one, other) = pair("127.0.0.1").await;
    let refused = [
        one.handle.send("lb9", 2000, Vec::new()),
        one.handle.send("lb2", kind::GOODBYE, Vec::new()),
        one.handle.send("lb2", 2000, vec![0; FRAME_MAX_BYTES + 1]),
        one.handle
            .send_datagram("lb2", 2000, vec![0; PAYLOAD_MAX_BYTES + 1]),
        one.handle.set_heartbeat(vec![0; HEARTBEAT_MAX_BYTES + 1]),
    ];
    for result in refused {
        assert!(result.is_err());
    }
    one.handle
        .set_heartbeat(vec![0; HEARTBEAT_MAX_BYTES])
        .expect("fits");
    one.handle.shutdown().await;
    other.handle.shutdown().await;
}

/// Its daemon takes nothing, so it stops reading: what waits for it is bounded, and the link is reset.
#[tokio::test]
async fn a_peer_that_stops_reading_is_reset_and_memory_does_not_grow() {
    let (mut one, other) = pair("127.0.0.1").await;
    let mut sent_count = 0;
    let error = loop {
        match one.handle.send("lb2", 2000, vec![7; 60_000]) {
            Ok(()) => sent_count += 1,
            Err(error) => break error,
        }
        assert!(sent_count < 10_000, "600 MB wait somewhere");
        if sent_count % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert_eq!(error, SendError::Full("lb2".to_owned()));
    assert_eq!(one.expect_down().await, DownReason::Overflow);
    // Although nobody takes its events.
    other.handle.shutdown().await;
    one.handle.shutdown().await;
}

/// Of three nodes, one tells more than the second takes.
#[tokio::test]
async fn a_peer_whose_frames_wait_leaves_the_heartbeats_of_others_alone() {
    const FRAMES: u32 = 5_000;
    let [a, b, c] = [1, 2, 3].map(|_| free_address("127.0.0.1"));
    let mut one = Node::start("lb1", 1, &config(a, &[("lb2", b), ("lb3", c)]));
    let mut two = Node::start("lb2", 1, &config(b, &[("lb1", a)]));
    let mut three = Node::start("lb3", 1, &config(c, &[("lb1", a)]));
    two.expect_up("lb1").await;
    three.expect_up("lb1").await;
    one.until(|status| status.peers.iter().all(|peer| peer.is_up))
        .await;
    for number in 0..FRAMES {
        let bytes = number.to_be_bytes().to_vec();
        two.handle.send("lb1", 2000, bytes).expect("up");
    }
    let is_full = |status: &LinksStatus| status.peers[0].received.frames >= FRAMES_MAX as u64;
    let full = one.until(is_full).await;
    let later = full.peers[1].received.datagrams + 20;
    let status = one
        .until(|status| status.peers[1].received.datagrams > later)
        .await;
    assert_eq!(status.peers[1].overruns, 0, "none of lb3's was lost");
    let taken = status.peers[0].received.frames;
    // Pings that came before are counted, too.
    let expected = FRAMES_MAX as u64..FRAMES_MAX as u64 + 16;
    assert!(
        expected.contains(&taken),
        "{taken}: the others wait for room"
    );
    // The session goes on in the other direction.
    one.handle
        .send("lb2", 2000, b"answer".to_vec())
        .expect("up");
    let is_answer = |event: &LinkEvent| matches!(event, LinkEvent::Frame { .. });
    two.expect(is_answer).await;
    three
        .handle
        .set_heartbeat(b"latest".to_vec())
        .expect("short");

    let (mut next, mut is_heard) = (0, false);
    while next < FRAMES || !is_heard {
        match one.event().await {
            LinkEvent::Frame { bytes, .. } => {
                assert_eq!(*bytes, next.to_be_bytes());
                next += 1;
            }
            LinkEvent::Heartbeat { payload, .. } => is_heard |= payload == b"latest",
            LinkEvent::Down { peer, reason } => panic!("{peer}: {reason}"),
            _ => (),
        }
    }
    for node in [one, two, three] {
        node.handle.shutdown().await;
    }
}

/// A connection from an address that is no peer's, perhaps with the first bytes of a hello.
fn stranger(to: SocketAddr, says_something: bool) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from: SocketAddr = "127.0.0.3:0".parse().expect("an address");
    socket.bind(&from.into()).expect("an address");
    socket.connect(&to.into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    if says_something {
        // It may have been closed already.
        let _ = stream.write_all(&Hello::of("lb1").to_bytes()[..4]);
    }
    stream
}

#[tokio::test]
async fn half_open_handshakes_and_noise_leave_the_link_alone() {
    let (a, b) = (free_address("127.0.0.1"), free_address("127.0.0.2"));
    let mut other = Node::start("lb2", 1, &config(b, &[("lb1", a)]));
    // From an address that is no peer's: more than there are places, none of which says a word.
    let connecting = tokio::task::spawn_blocking(move || {
        let strangers = (0..200).map(|number| stranger(b, number % 2 == 1));
        strangers.collect::<Vec<_>>()
    });
    let strangers = connecting.await.expect("no panic");
    other.until(|status| status.refused_connections > 100).await;
    // Datagrams of nobody's, of nobody's form, and oversized.
    let noise = UdpSocket::bind("127.0.0.3:0").expect("an address");
    let mut sealer = Sealer::new(&DatagramKey::random());
    let mut datagram = Vec::new();
    for number in 0..500_usize {
        sealer.seal(2000, &[1; 100], &mut datagram);
        noise.send_to(&datagram, b).expect("sent");
        noise.send_to(&vec![0xff; number * 100], b).expect("sent");
    }
    let mut one = Node::start("lb1", 1, &config(a, &[("lb2", b)]));
    one.expect_up("lb2").await;
    other.expect_up("lb1").await;
    other.until(|status| status.stranger_datagrams > 0).await;
    drop(strangers);
    one.handle.shutdown().await;
    other.handle.shutdown().await;
}

/// A dictionary of one service with one backend.
fn dictionary(service_id: u16, backend_id: u16) -> Dictionary {
    let service = ServiceEndpoint {
        vip: "203.0.113.10".parse().expect("an address"),
        port: 80,
        protocol: 6,
    };
    let backend = BackendEndpoint {
        service_id,
        generation: 1,
        address: "10.0.0.1:8080".parse().expect("an address"),
    };
    Dictionary {
        services: BTreeMap::from([(service_id, service)]),
        backends: BTreeMap::from([(backend_id, backend)]),
    }
}

#[tokio::test]
async fn flows_of_one_node_are_in_the_table_of_the_other() {
    let (one, other) = pair("127.0.0.1").await;
    let mut tables = [(3, 7), (9, 101)]
        .map(|(service_id, backend_id)| MemoryTable::new(64, dictionary(service_id, backend_id)));
    let expires_s = (wire::now_us() / 1_000_000) as u32 + 900;
    for flow in 2..202_u64 {
        let record = FlowRecord::new(7, 1, expires_s, FlowState::OPEN);
        assert!(tables[0].write(lb_common::hash::mix(flow), 3, record));
    }
    let [its, others] = tables;
    one.handle.share_table(Some(Box::new(its))).await;
    let status = other.until(|status| status.peers[0].is_up).await;
    assert!(!status.peers[0].flows.is_caught_up);
    other.handle.share_table(Some(Box::new(others))).await;
    let status = other
        .until(|status| status.peers[0].flows.is_caught_up)
        .await;
    assert_eq!(status.peers[0].flows.received.agreed, 200);
    let status = one.until(|status| status.peers[0].flows.has_told_all).await;
    assert_eq!(status.peers[0].flows.lag_ms, 0);
    one.handle.share_table(None).await;
    one.until(|status| !status.peers[0].flows.is_caught_up)
        .await;
    one.handle.shutdown().await;
    other.handle.shutdown().await;
}

#[tokio::test]
async fn a_slow_loris_loses_its_place() {
    let (a, b) = (free_address("127.0.0.1"), free_address("127.0.0.1"));
    let other = Node::start("lb2", 1, &config(b, &[("lb1", a)]));
    let began = Instant::now();
    let mut stream = TcpStream::connect(b).expect("connected");
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a time-out");
    let mut hello = Vec::new();
    let bytes = Hello::of("lb1").to_bytes();
    hello.extend(((bytes.len() + 1) as u16).to_be_bytes());
    hello.push(1);
    hello.extend(bytes);
    let closed = tokio::task::spawn_blocking(move || {
        let mut bytes = hello.into_iter().cycle();
        let mut buffer = [0; 100];
        while began.elapsed() < PATIENCE {
            let byte = bytes.next().expect("endless");
            if stream.write_all(&[byte]).is_err() || matches!(stream.read(&mut buffer), Ok(0)) {
                return true;
            }
        }
        false
    });
    assert!(closed.await.expect("no panic"), "it was closed");
    assert!(began.elapsed() < HANDSHAKE_TIMEOUT * 2);
    other.handle.shutdown().await;
}
