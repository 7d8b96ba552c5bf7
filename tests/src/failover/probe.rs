//! A client that asks a VIP a thousand times a second whether somebody is there: a bare SYN each time, to
//! which a SYN-ACK is the answer. Nothing repeats one, so each tells of its own millisecond; the client's
//! kernel, which knows of no such connection, resets it at once.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::darkness::{Darkness, Shot};
use crate::disruption::record::now_ns;
use crate::netns::Netns;
use crate::wait::wait_until;

/// Between two probes.
pub const INTERVAL: Duration = Duration::from_millis(1);

/// Source ports of probes, one after another: no kernel of the laboratory picks them by itself.
const PORT_FIRST: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;
/// The ports that the client's other connections take instead.
const OTHER_PORTS: &str = "32768 60999";

/// Length of a TCP header without options. Unit: bytes.
const TCP_LEN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const FLAG_ACK: u8 = 0x10;
const FLAG_RST: u8 = 0x04;

/// The priority of the probing thread (`SCHED_FIFO`): what it measures is not the scheduler.
const PRIORITY: i32 = 20;

/// A probing thread. Dropping it ends it.
#[derive(Debug)]
pub struct Probe {
    target: SocketAddr,
    shots: Arc<Mutex<Vec<Shot>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Probe {
    /// Starts asking from `netns`.
    pub fn start(netns: &Netns, target: SocketAddr) -> Result<Self> {
        netns.sysctl(&[("net/ipv4/ip_local_port_range", OTHER_PORTS)])?;
        let source = netns.run(|| source_towards(target))??;
        let socket = netns.run(|| open(target))??;
        let shots = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (log, over) = (Arc::clone(&shots), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            be_prompt();
            ask(&socket, source, target, &log, &over)
        });
        Ok(Self {
            target,
            shots,
            is_over,
            thread: Some(thread),
        })
    }

    /// Forgets what has been; the next [`Probe::darkness`] tells of the time from now on.
    pub fn begin(&self) {
        self.lock().clear();
    }

    /// What it has met since [`Probe::begin`].
    pub fn darkness(&self) -> Darkness {
        Darkness::of(&self.lock())
    }

    /// Waits until everything was answered for as long as `light`, not counting what is under way.
    pub fn wait_light(&self, light: Duration, timeout: Duration) -> Result<()> {
        let what = format!("{} to answer for {} ms", self.target, light.as_millis());
        wait_until(&what, timeout, || {
            ensure!(!self.has_ended(), "the probe of {} has ended", self.target);
            Ok(is_light(&self.lock(), light).then_some(()))
        })
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shot>> {
        self.shots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the probe of {}: {error:#}", self.target),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

/// Whether the answered end of `shots` is so long. Those behind the last answer are under way, as long as
/// they are young.
fn is_light(shots: &[Shot], light: Duration) -> bool {
    let under_way = shots.iter().rev();
    let under_way = under_way.take_while(|shot| !shot.is_answered()).count();
    let (done, under_way) = shots.split_at(shots.len() - under_way);
    let Some(last) = done.last() else {
        return false;
    };
    let newest_ns = under_way.last().map_or(last.sent_ns, |shot| shot.sent_ns);
    if newest_ns - last.sent_ns > super::darkness::ANSWER_MAX.as_nanos() as u64 {
        return false;
    }
    let first = done
        .iter()
        .rev()
        .take_while(|shot| shot.is_answered())
        .last();
    first.is_some_and(|first| last.sent_ns - first.sent_ns >= light.as_nanos() as u64)
}

/// The address that packets to `target` leave from.
fn source_towards(target: SocketAddr) -> Result<IpAddr> {
    let any = match target {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(target)
        .with_context(|| format!("no way to {target}"))?;
    Ok(socket.local_addr()?.ip())
}

/// A raw TCP socket that hears nothing but answers to probes.
fn open(target: SocketAddr) -> Result<Socket> {
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).context("no raw socket")?;
    socket
        .attach_filter(&answers_only(target))
        .context("no socket filter")?;
    let peer = SocketAddr::new(target.ip(), 0);
    socket
        .connect(&peer.into())
        .with_context(|| format!("no way to {target}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A classic BPF program (linux/filter.h): what is for a probe's port is taken, the rest is not. In IPv4 a
/// raw socket's packets begin with the IP header, in IPv6 with the TCP header.
fn answers_only(target: SocketAddr) -> Vec<SockFilter> {
    let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    let port = match target {
        SocketAddr::V4(_) => vec![
            op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
            op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        ],
        SocketAddr::V6(_) => vec![op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 2)],
    };
    let end = PORT_FIRST + PORT_COUNT;
    let judge = [
        op(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            0,
            2,
            PORT_FIRST.into(),
        ),
        op(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            1,
            0,
            end.into(),
        ),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    port.into_iter().chain(judge).collect()
}

/// Real-time priority, where it is allowed.
fn be_prompt() {
    let parameters = libc::sched_param {
        sched_priority: PRIORITY,
    };
    // SAFETY: a system call for the calling thread; it reads the live parameters only.
    let _ordinary = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
}

/// The thread: sends, and between two probes takes answers in.
fn ask(
    socket: &Socket,
    source: IpAddr,
    target: SocketAddr,
    shots: &Mutex<Vec<Shot>>,
    is_over: &AtomicBool,
) -> Result<()> {
    let interval_ns = INTERVAL.as_nanos() as u64;
    // The number of the first shot in the log: [`Probe::begin`] empties it.
    let (mut number, mut first) = (0_u32, 0_u32);
    let mut due_ns = now_ns();
    while !is_over.load(Ordering::Relaxed) {
        {
            let mut shots = shots.lock().unwrap_or_else(PoisonError::into_inner);
            if shots.is_empty() {
                first = number;
            }
            shots.push(Shot {
                sent_ns: now_ns(),
                answered_ns: None,
            });
        }
        // A machine that knows no way at the moment is as dark as one whose packets are lost.
        let _dark = socket.send(&syn(source, target, number));
        number = number.wrapping_add(1);
        due_ns = (due_ns + interval_ns).max(now_ns());
        while let Some(left_ns) = due_ns.checked_sub(now_ns()).filter(|left| *left > 0) {
            await_answer(socket, Duration::from_nanos(left_ns))?;
            take_answers(socket, target, |answered| {
                let mut shots = shots.lock().unwrap_or_else(PoisonError::into_inner);
                let place = answered.wrapping_sub(first) as usize;
                if let Some(shot) = shots.get_mut(place) {
                    shot.answered_ns.get_or_insert_with(now_ns);
                }
            });
        }
    }
    Ok(())
}

fn await_answer(socket: &Socket, longest: Duration) -> Result<()> {
    let mut fd = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: longest.subsec_nanos().into(),
    };
    // SAFETY: one live entry, and a live time-out; the mask of signals stays as it is.
    let ready = unsafe { libc::ppoll(&raw mut fd, 1, &raw const timeout, ptr::null()) };
    match Errno::result(ready) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait for answers"),
    }
}

/// Calls `answered` with the number of each probe whose answer is there.
fn take_answers(socket: &Socket, target: SocketAddr, mut answered: impl FnMut(u32)) {
    let mut bytes = [MaybeUninit::<u8>::uninit(); 128];
    loop {
        match socket.recv(&mut bytes) {
            Ok(length) => {
                // SAFETY: the kernel has just written so many bytes of it.
                let packet =
                    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length) };
                if let Some(number) = parse_answer(target, packet) {
                    answered(number);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // Such as an ICMP error that has come for an earlier probe; it is taken by being told.
            Err(_) => {}
        }
    }
}

/// The SYN of the probe `number`, which is its initial sequence number (RFC 9293 section 3.1).
fn syn(source: IpAddr, target: SocketAddr, number: u32) -> [u8; TCP_LEN] {
    let mut header = [0; TCP_LEN];
    let port = PORT_FIRST + (number % u32::from(PORT_COUNT)) as u16;
    header[0..2].copy_from_slice(&port.to_be_bytes());
    header[2..4].copy_from_slice(&target.port().to_be_bytes());
    header[4..8].copy_from_slice(&number.to_be_bytes());
    header[12] = (TCP_LEN as u8 / 4) << 4;
    header[13] = FLAG_SYN;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let checksum = checksum(source, target.ip(), &header);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The Internet checksum over the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) and the segment.
fn checksum(source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    bytes.extend([0, libc::IPPROTO_TCP as u8]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| {
            u32::from(u16::from_be_bytes([
                word[0],
                word.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !(((folded >> 16) + (folded & 0xffff)) as u16)
}

/// The probe that a packet of `target` answers: a SYN-ACK for its sequence number.
fn parse_answer(target: SocketAddr, packet: &[u8]) -> Option<u32> {
    let header_len = match target {
        SocketAddr::V4(_) => usize::from(packet.first()? & 0xf) * 4,
        SocketAddr::V6(_) => 0,
    };
    let tcp = packet.get(header_len..header_len + TCP_LEN)?;
    let is_syn_ack = tcp[13] & (FLAG_SYN | FLAG_ACK | FLAG_RST) == FLAG_SYN | FLAG_ACK;
    let acknowledged = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
    is_syn_ack.then(|| acknowledged.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_has_a_right_checksum_and_its_answer_is_found() {
        let source: IpAddr = "10.0.0.100".parse().unwrap();
        let target: SocketAddr = "203.0.113.10:8001".parse().unwrap();
        let segment = syn(source, target, 7);
        assert_eq!(checksum(source, target.ip(), &segment), 0);

        let mut answer = segment;
        answer[8..12].copy_from_slice(&8_u32.to_be_bytes());
        let v6: SocketAddr = "[2001:db8:113::10]:8001".parse().unwrap();
        assert_eq!(parse_answer(v6, &answer), None);
        answer[13] = FLAG_SYN | FLAG_ACK;
        assert_eq!(parse_answer(v6, &answer), Some(7));
        let mut packet = vec![0x45; 20];
        packet.extend(answer);
        assert_eq!(parse_answer(target, &packet), Some(7));
        assert_eq!(parse_answer(target, &packet[..30]), None);
    }

    #[test]
    fn light_is_an_unbroken_row_of_answers_up_to_now() {
        let shot = |ms: u64, is_answered: bool| Shot {
            sent_ns: ms * 1_000_000,
            answered_ns: is_answered.then_some(ms * 1_000_000 + 1),
        };
        let light = Duration::from_millis(10);
        let mut shots: Vec<Shot> = (0..=10).map(|ms| shot(ms, true)).collect();
        assert!(is_light(&shots, light) && !is_light(&shots[..10], light));
        shots.push(shot(11, false));
        assert!(is_light(&shots, light));
        shots.push(shot(200, false));
        assert!(!is_light(&shots, light));
        shots.push(shot(201, true));
        assert!(!is_light(&shots, light));
    }
}
