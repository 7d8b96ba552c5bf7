//! Checks through the datapath, on a veth pair: to a VIP that this node has itself, at the Ethernet address of
//! a backend that has it on its loopback, or has lost it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::abi::LinkRewrite;
use lb_lab::datapath::frame::{Flags, Frame, Transport};
use lb_lab::link::veth_pair;
use lb_lab::wait::wait_until;
use lb_lab::{Netns, require};
use lb_userspace::health::outcome::{Failure, FailureKind};
use lb_userspace::health::probe::{Target, probe, wire};
use lb_userspace::model::check::{CheckKind, ExchangeCheck, HttpCheck, HttpVersion, StatusRange};
use lb_userspace::netlink::view::LocalAddress;
use lb_userspace::ways::{Way, Ways};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::watch;

const VIP: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
const NODE: [&str; 2] = ["10.0.0.1", "fd00:10::1"];
const BACKEND: [&str; 2] = ["10.0.0.11", "fd00:10::11"];
const PORT: u16 = 8080;

/// For answers that come.
const PATIENCE: Duration = Duration::from_secs(20);
/// For answers that never do.
const SHORT: Duration = Duration::from_millis(300);

/// A page that is larger than what a connection takes at once.
const PAGE_BYTES: usize = 60_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with the VIPs, and a backend.
struct Pair {
    node: Netns,
    backend: Netns,
    ways: watch::Sender<Arc<Ways>>,
    /// Connections that the web server has seen the end of, by a RST and otherwise.
    ends: [Arc<AtomicUsize>; 2],
}

impl Pair {
    fn build() -> Self {
        let (node, backend) = (
            Netns::create("node").unwrap(),
            Netns::create("web1").unwrap(),
        );
        veth_pair((&node, "eth0"), (&backend, "eth0")).unwrap();
        let [vip, vip6] = VIP;
        node.ip(&format!(
            "link set lo up\naddr add 10.0.0.1/24 dev eth0\naddr add fd00:10::1/64 dev eth0 nodad\n\
             addr add {vip}/32 dev eth0\naddr add {vip6}/128 dev eth0 nodad"
        ))
        .unwrap();
        backend
            .ip("link set lo up\naddr add 10.0.0.11/24 dev eth0\n\
                 addr add fd00:10::11/64 dev eth0 nodad")
            .unwrap();
        backend
            .sysctl(&[
                ("net/ipv4/conf/all/arp_ignore", "1"),
                ("net/ipv4/conf/all/arp_announce", "2"),
                ("net/ipv4/conf/all/forwarding", "0"),
            ])
            .unwrap();
        let pair = Self {
            ways: watch::Sender::default(),
            node,
            backend,
            ends: Default::default(),
        };
        pair.vips("add");
        pair.resolve();
        pair.serve();
        pair
    }

    /// Adds the VIPs to the backend's loopback, or deletes them.
    fn vips(&self, what: &str) {
        let [vip, vip6] = VIP;
        let nodad = if what == "add" { " nodad" } else { "" };
        self.backend
            .ip(&format!(
                "addr {what} {vip}/32 dev lo\naddr {what} {vip6}/128 dev lo{nodad}"
            ))
            .unwrap();
    }

    fn ways_at(&self, backend_mac: [u8; 6]) -> Ways {
        let addresses: Arc<[LocalAddress]> = NODE
            .iter()
            .zip([24, 64])
            .map(|(address, prefix_len)| LocalAddress {
                ifindex: self.node.interface_index("eth0").unwrap(),
                address: ip(address),
                prefix_len,
            })
            .collect();
        let way = Way {
            ifindex: self.node.interface_index("eth0").unwrap(),
            interface: "eth0".to_owned(),
            link: LinkRewrite::new(backend_mac, mac(&self.node)),
            addresses,
        };
        Ways::from_parts(
            BACKEND.iter().map(|to| (ip(to), Ok(way.clone()))).collect(),
            NODE.iter().map(|own| ip(own)).collect(),
        )
    }

    fn resolve(&self) {
        let ways = self.ways_at(mac(&self.backend));
        self.ways.send_replace(Arc::new(ways));
    }

    /// A web server on every address, and one that sends datagrams back.
    fn serve(&self) {
        let bind = || {
            (
                TcpListener::bind(("::", PORT)).unwrap(),
                VIP.map(|vip| UdpSocket::bind((vip, PORT)).unwrap()),
            )
        };
        let (listener, datagrams) = self.backend.run(bind).unwrap();
        let ends = self.ends.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let [by_reset, others] = ends.clone();
                thread::spawn(move || match answer(stream) {
                    true => by_reset.fetch_add(1, Ordering::Relaxed),
                    false => others.fetch_add(1, Ordering::Relaxed),
                });
            }
        });
        for socket in datagrams {
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    let _lost = socket.send_to(&buffer[..length], client);
                }
            });
        }
    }

    /// Runs `work` where the checks are asked from.
    fn run<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> T {
        let ways = self.ways.subscribe();
        let block_on = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            wire::follow(ways);
            runtime.block_on(work())
        };
        self.node.run(block_on).unwrap()
    }

    fn ask(&self, kind: &CheckKind, target: Target) -> Result<(), Failure> {
        self.run(|| ask(kind, target, PATIENCE))
    }

    fn refused(&self, kind: &CheckKind, target: Target, timeout: Duration) -> Failure {
        self.run(|| ask(kind, target, timeout)).unwrap_err()
    }
}

async fn ask(kind: &CheckKind, target: Target, timeout: Duration) -> Result<(), Failure> {
    probe(kind, target, Instant::now() + timeout).await.0
}

/// Answers requests until the connection ends; whether that was by a RST.
fn answer(mut stream: std::net::TcpStream) -> bool {
    let mut request = [0; 4096];
    loop {
        match stream.read(&mut request) {
            Ok(0) => return false,
            Ok(_) => {
                let mut page = format!("HTTP/1.1 200 OK\r\nContent-Length: {PAGE_BYTES}\r\n\r\n");
                page.extend(std::iter::repeat_n('x', PAGE_BYTES - 3));
                page.push_str("end");
                if stream.write_all(page.as_bytes()).is_err() {
                    return true;
                }
            }
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn mac(netns: &Netns) -> [u8; 6] {
    let words = ["-o", "link", "show", "dev", "eth0"];
    let shown = netns.command("ip").args(words).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    let text = words.nth(1).unwrap();
    let bytes = text
        .split(':')
        .map(|one| u8::from_str_radix(one, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

fn target(family: usize) -> Target {
    Target {
        address: SocketAddr::new(ip(BACKEND[family]), PORT),
        source: None,
        vip: Some(SocketAddr::new(ip(VIP[family]), PORT)),
    }
}

fn tcp() -> CheckKind {
    CheckKind::Tcp(ExchangeCheck::default())
}

fn http() -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: None,
        version: HttpVersion::Http1,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![StatusRange {
            first: 200,
            last: 200,
        }],
        body: "end".to_owned(),
    })
}

fn udp() -> CheckKind {
    CheckKind::Udp(ExchangeCheck {
        send: "ping".to_owned(),
        expect: "ping".to_owned(),
    })
}

#[test]
fn a_backend_without_the_vip_is_found_out() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    let kinds = [tcp(), http(), udp(), CheckKind::Icmp];
    let asked_and_good = |pair: &Pair| {
        for family in [0, 1] {
            for kind in &kinds {
                let result = pair.ask(kind, target(family));
                assert_eq!(result, Ok(()), "{kind:?} over {}", VIP[family]);
            }
        }
    };
    asked_and_good(&pair);

    pair.vips("del");
    for family in [0, 1] {
        for kind in &kinds {
            let failure = pair.refused(kind, target(family), SHORT);
            // Linux says nothing over IPv4, and "no route" over IPv6.
            let (kind_of_failure, reason) = match family {
                0 => (
                    FailureKind::TimedOut,
                    "no answer from VIP 203.0.113.10 at 10.0.0.11: is it on the backend's loopback?",
                ),
                _ => (
                    FailureKind::Unreachable,
                    "the backend does not have the VIP: is it on its loopback?",
                ),
            };
            assert_eq!(failure.kind, kind_of_failure, "{failure:?}");
            assert!(failure.reason.starts_with(reason), "{failure:?}");
            let direct = Target {
                vip: None,
                ..target(family)
            };
            if matches!(kind, CheckKind::Tcp(_) | CheckKind::Http(_)) {
                assert_eq!(pair.ask(kind, direct), Ok(()), "at its own address");
            }
        }
    }
    pair.vips("add");
    asked_and_good(&pair);
}

#[test]
fn a_vip_that_nobody_listens_on_refuses() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    for family in [0, 1] {
        let mut closed = target(family);
        closed.vip = Some(SocketAddr::new(ip(VIP[family]), PORT + 1));
        for kind in [tcp(), udp()] {
            let failure = pair.refused(&kind, closed, PATIENCE);
            assert_eq!(failure.kind, FailureKind::Refused, "{failure:?}");
            assert!(failure.reason.contains("nobody listens"), "{failure:?}");
        }
    }
}

#[test]
fn what_keeps_a_question_from_being_asked_is_told() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    let told = |target: Target, kind: FailureKind, reason: &str| {
        let failure = pair.refused(&tcp(), target, PATIENCE);
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.reason.contains(reason), "{failure:?}");
    };
    let mut other_source = target(0);
    other_source.source = Some(ip("10.0.0.77"));
    told(other_source, FailureKind::Local, "does not have it");

    let unresolved = Err("10.0.0.11 does not answer on eth0".to_owned());
    let ways = Ways::from_parts(
        BTreeMap::from([(ip(BACKEND[0]), unresolved)]),
        BTreeSet::new(),
    );
    pair.ways.send_replace(Arc::new(ways));
    told(
        target(0),
        FailureKind::Unreachable,
        "10.0.0.11 does not answer on eth0",
    );
    told(target(1), FailureKind::Unreachable, "not looked up yet");

    pair.resolve();
    pair.node.ip("link set eth0 down").unwrap();
    told(target(0), FailureKind::Unreachable, "interface is down");
}

/// A backend that is resolved while the check waits for it is asked.
#[test]
fn a_backend_that_is_just_being_resolved_gets_time() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    let resolved = Arc::clone(&pair.ways.borrow());
    pair.ways.send_replace(Arc::default());
    let result = pair.run(|| async {
        let resolving = async {
            tokio::task::yield_now().await;
            pair.ways.send_replace(resolved);
        };
        let tcp = tcp();
        tokio::join!(ask(&tcp, target(0), PATIENCE), resolving).0
    });
    assert_eq!(result, Ok(()));
}

/// Somebody on the LAN sends what he likes to the ports of our checks, in the name of the VIP: what does not fit
/// a conversation is for nobody, what fits is one of its packets, and the checks go on.
#[test]
fn a_flood_of_forged_answers_is_survived() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    let frames = forged_answers(mac(&pair.node), mac(&pair.backend));
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let flood = || {
        let socket = raw_socket(pair.backend.interface_index("eth0").unwrap());
        for frame in frames.iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            // A full queue is part of it.
            sent.fetch_add(usize::from(socket.send(frame).is_ok()), Ordering::Relaxed);
        }
    };
    let (good, asked) = thread::scope(|scope| {
        scope.spawn(|| pair.backend.run(flood).unwrap());
        // Also when a check panics: else the flood would go on for ever.
        let _over = Over(&is_over);
        pair.run(|| async {
            let (mut good, mut asked) = (0, 0);
            let began = Instant::now();
            while sent.load(Ordering::Relaxed) < 200_000 && began.elapsed() < PATIENCE {
                for family in [0, 1] {
                    // The answer may find no room among the forged ones; then it has to come to an end.
                    let answer = ask(&tcp(), target(family), FLOODED).await;
                    good += u32::from(answer.is_ok());
                    asked += 1;
                }
            }
            (good, asked)
        })
    });
    println!("{good} of {asked} checks were answered among {sent:?} forged frames");
    assert!(asked > 0);
    for family in [0, 1] {
        let after = pair.ask(&tcp(), target(family));
        assert_eq!(after, Ok(()), "once the flood is over");
    }
}

/// How long a check may take in a flood.
const FLOODED: Duration = Duration::from_secs(2);

/// Says that something is over when it is dropped.
struct Over<'f>(&'f AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers to every port of our checks, over both families, with numbers that are anybody's guess.
fn forged_answers(to_mac: [u8; 6], from_mac: [u8; 6]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for port in 61_000..=u16::MAX {
        for family in [0, 1] {
            let flags = [Flags::SynAck, Flags::RstAck, Flags::FinAck, Flags::Ack];
            let transport = match port % 5 {
                4 => Transport::Udp,
                one => Transport::Tcp(flags[usize::from(one)]),
            };
            let (vip, node) = (ip(VIP[family]), ip(NODE[family]));
            let frame = Frame {
                to_mac,
                from_mac,
                sequence: u32::from(port) << 16,
                acknowledgement: u32::from(port) << 15,
                payload: vec![0; usize::from(port % 700)],
                ..Frame::new(vip, PORT, node, port, transport)
            };
            frames.push(frame.bytes());
        }
    }
    frames
}

/// A socket that sends frames on an interface of this thread's namespace.
fn raw_socket(ifindex: u32) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    // SAFETY: the storage is as large as any address, and zeroed; this one is of integers only.
    let bound = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as i32;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    let (_, address) = bound.unwrap();
    socket.bind(&address).unwrap();
    socket
}

/// Sockets, ports, memory and connections: nothing of many checks stays.
#[test]
fn many_checks_leave_nothing_behind() {
    if require(&["ip", "ss"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    const CHECKS: usize = 2_000;
    const AT_A_TIME: usize = 50;
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, after, failed) = pair.run(|| async {
        // The link's socket stays open for a while.
        assert_eq!(ask(&http(), target(0), PATIENCE).await, Ok(()));
        assert_eq!(ask(&http(), target(1), PATIENCE).await, Ok(()));
        let before = files();
        let mut failed = 0;
        for round in 0..CHECKS / AT_A_TIME {
            let kind = if round % 2 == 0 { tcp() } else { http() };
            let asked = (0..AT_A_TIME).map(|one| ask(&kind, target(one % 2), PATIENCE));
            let results = futures::future::join_all(asked).await;
            failed += results.iter().filter(|result| result.is_err()).count();
        }
        (before, files(), failed)
    });
    assert_eq!(failed, 0);
    // The server's ends are in this process, too: its threads close theirs when they have seen the RST.
    let total = CHECKS + 2;
    wait_until("all connections to end", PATIENCE, || {
        let ended: usize = pair
            .ends
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        Ok((ended == total).then_some(()))
    })
    .unwrap();
    println!(
        "{before} descriptors before, {after} right after, {} in the end",
        files()
    );
    assert!(
        files() <= before,
        "{} descriptors, {before} before",
        files()
    );
    assert_eq!(pair.ends[1].load(Ordering::Relaxed), 0, "ended by a FIN");
    let sockets = pair.backend.command("ss").args(["-Htan"]).output().unwrap();
    let sockets = String::from_utf8(sockets.stdout).unwrap();
    let left = sockets.lines().filter(|line| !line.starts_with("LISTEN"));
    assert_eq!(left.count(), 0, "{sockets}");
}
