//! A session over a TCP connection: the handshake, then frames both ways until it ends.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::shared::{PeerState, Seat, Shared, add, stopped};
use super::status::DownReason;
use super::wire::Command;
use super::{HANDSHAKE_TIMEOUT, Introduction, LinkEvent, SILENCE_MAX};
use crate::sync::datagram::DatagramKey;
use crate::sync::hello::{Refusal, Version};
use crate::sync::kind;
use crate::sync::session::{Event, Role, Session, Terms};

/// Bytes that wait for the connection before further frames are sealed. Unit: bytes.
const UNSENT_MAX_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Looks between two pings.
const PING_LOOKS: u32 = 4;
/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long TCP goes on sending what is not acknowledged. While datagrams come through, the link is only slow, and whether
/// the peer is there is [`SILENCE_MAX`]'s matter. Where nine packets of ten are lost each way, at an attempt a second, it
/// takes ten seconds on average until one arrives, and ten more until its acknowledgement does: of such half minutes two
/// in ten pass without, and a connection that is given up is hardly made again; of such two minutes, one in ten thousand.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Retransmissions that are not acknowledged come after at most this. Unit: milliseconds; the least possible.
const RTO_MAX_MS: libc::c_int = 1_000;
/// Of `linux/tcp.h`, since Linux 6.15 (commit 54a378f43425).
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// What is told in the first frame.
#[derive(Serialize, Deserialize)]
struct Welcome {
    key: DatagramKey,
    introduction: Introduction,
}

/// How an attempt has ended.
pub(super) enum Outcome {
    /// It was up.
    Ended,
    /// It has not come up: whom it claimed to be, if it got so far, and why.
    Failed {
        claimed: Option<String>,
        reason: DownReason,
    },
}

/// A connection with what has not yet gone through it.
struct Stream {
    tcp: TcpStream,
    session: Session,
    unsent: Vec<u8>,
    events: Vec<Event>,
    /// Frames, by kind and content, that have arrived and not been handed on.
    undelivered: VecDeque<(u16, Vec<u8>)>,
    buffer: Box<[u8]>,
}

/// A session that is up, with whom.
struct Arrival {
    peer: Arc<PeerState>,
    version: Version,
    welcome: Welcome,
}

/// Runs a session over a connection, until it ends. `permit` is dropped when the other end has shown that it has
/// the secret.
pub(super) async fn run<Permit>(
    shared: &Shared,
    tcp: TcpStream,
    role: Role,
    expected: BTreeSet<String>,
    permit: Permit,
    mut stopping: watch::Receiver<bool>,
) -> Outcome {
    let key = DatagramKey::random();
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut stream = match Stream::new(shared, tcp, role, expected, &key) {
        Ok(stream) => stream,
        Err(error) => {
            return Outcome::Failed {
                claimed: None,
                reason: DownReason::Failed(error.to_string()),
            };
        }
    };
    let arrival = tokio::select! {
        arrival = timeout_at(deadline, stream.shake_hands(shared)) => arrival.unwrap_or_else(|_| {
            let silent_ms = HANDSHAKE_TIMEOUT.as_millis() as u64;
            Err(DownReason::Silent { silent_ms })
        }),
        () = stopped(&mut stopping) => Err(DownReason::Stopped),
    };
    match arrival {
        Ok(arrival) => {
            drop(permit);
            stream.live(shared, arrival, &key, &mut stopping).await;
            Outcome::Ended
        }
        Err(reason) => Outcome::Failed {
            claimed: stream.session.claimed().map(str::to_owned),
            reason,
        },
    }
}

/// Over a link that loses half of all packets, TCP would soon wait for minutes: each loss doubles the time to the next
/// attempt. These connections carry little, so they may try more often. A kernel that does not know how goes on
/// doubling, in the latter case after six attempts.
///
/// Nor is the congestion control left to the system: BBR, where it is the default, takes the losses for a path of some
/// hundred bytes a second, and by that rate a segment of some kilobytes keeps the next one waiting for minutes, also when
/// the path has healed meanwhile (seen with Linux 6.18: 76 s with nothing under way, and 180 kB to be sent). Reno, which
/// every kernel has, paces nothing.
fn be_impatient(tcp: &TcpStream) {
    // Without it, the connection is slower after heavy loss, and right.
    let _refused = socket2::SockRef::from(tcp).set_tcp_congestion(b"reno");
    let options = [
        (TCP_RTO_MAX_MS, RTO_MAX_MS),
        (libc::TCP_THIN_LINEAR_TIMEOUTS, 1),
    ];
    for (option, value) in options {
        // SAFETY: the descriptor is open, and the value lives during the call.
        unsafe {
            libc::setsockopt(
                tcp.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            );
        }
    }
}

impl Stream {
    fn new(
        shared: &Shared,
        tcp: TcpStream,
        role: Role,
        expected: BTreeSet<String>,
        key: &DatagramKey,
    ) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        be_impatient(&tcp);
        let welcome = Welcome {
            key: key.clone(),
            introduction: shared.introduction(),
        };
        let terms = Terms {
            role,
            hello: shared.hello.clone(),
            expected,
            key: shared.key,
            welcome: postcard::to_stdvec(&welcome).map_err(io::Error::other)?,
        };
        let mut unsent = Vec::new();
        Ok(Self {
            tcp,
            session: Session::new(terms, &mut unsent),
            unsent,
            events: Vec::new(),
            undelivered: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into(),
        })
    }

    /// Until the other end is known to be a peer.
    async fn shake_hands(&mut self, shared: &Shared) -> Result<Arrival, DownReason> {
        loop {
            self.write_all().await?;
            if !self.events.is_empty() {
                break;
            }
            self.tcp.readable().await.map_err(failed)?;
            if let Err(reason) = self.read() {
                // The refusal that the other end gets to hear. If it does not, it sees the end.
                let _ = timeout(GOODBYE_TIMEOUT, self.write_all()).await;
                return Err(reason);
            }
        }
        let Event::Up {
            hello,
            version,
            welcome,
        } = self.events.remove(0)
        else {
            return Err(Refusal::Malformed("a frame comes before its welcome").into());
        };
        let (welcome, _later) = postcard::take_from_bytes(&welcome)
            .map_err(|_| Refusal::Malformed("its welcome cannot be read"))?;
        let peer = shared.peers.get(&hello.node).cloned();
        Ok(Arrival {
            peer: peer.ok_or(Refusal::Malformed("its name is none of a peer's"))?,
            version,
            welcome,
        })
    }

    /// From the time when it is up to its end.
    async fn live(
        &mut self,
        shared: &Shared,
        arrival: Arrival,
        key: &DatagramKey,
        stopping: &mut watch::Receiver<bool>,
    ) {
        let Arrival {
            peer,
            version,
            welcome,
        } = arrival;
        shared.replace(&peer);
        let _turn = peer.turn.lock().await;
        let introduction = welcome.introduction;
        let mut seat = shared.seat(&peer, version, introduction.clone());
        let up = Command::Up {
            peer: Arc::clone(&peer),
            session: seat.number,
            seal: key.clone(),
            open: welcome.key,
        };
        shared.commands.send(up).await;
        let event = LinkEvent::Up {
            peer: peer.name.clone(),
            version,
            introduction,
        };
        let reason = match emit(shared, event, stopping).await {
            Ok(()) => self.carry(shared, &peer, &mut seat, stopping).await,
            Err(reason) => reason,
        };
        shared.unseat(&peer, &reason);
        let session = seat.number;
        shared.commands.send(Command::Down { session }).await;
        let peer = peer.name.clone();
        // If the daemon does not listen any more, it does not need to know.
        let _ = emit(shared, LinkEvent::Down { peer, reason }, stopping).await;
    }

    /// Frames both ways.
    async fn carry(
        &mut self,
        shared: &Shared,
        peer: &PeerState,
        seat: &mut Seat,
        stopping: &mut watch::Receiver<bool>,
    ) -> DownReason {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_count = 0_u32;
        let end = Arc::clone(&seat.end);
        loop {
            if let Err(reason) = self.deliver(shared, peer, seat, stopping).await {
                return reason;
            }
            let next_bytes = self.undelivered.front().map(|(_, payload)| payload.len());
            let step = tokio::select! {
                reason = end.wait() => Err(reason),
                () = stopped(stopping) => {
                    self.say_goodbye().await;
                    Err(DownReason::Stopped)
                }
                () = peer.room.wait_for(next_bytes.unwrap_or_default()), if next_bytes.is_some() => Ok(()),
                ready = self.tcp.readable(), if next_bytes.is_none() => ready.map_err(failed).and_then(|()| {
                    let read_bytes = self.read()?;
                    add(&peer.counts.stream_bytes_received, read_bytes);
                    Ok(())
                }),
                ready = self.tcp.writable(), if !self.unsent.is_empty() => ready.map_err(failed).and_then(|()| {
                    let written_bytes = self.write()?;
                    add(&peer.counts.stream_bytes_sent, written_bytes);
                    Ok(())
                }),
                Some((kind, bytes)) = seat.outbound.recv(), if self.unsent.len() < UNSENT_MAX_BYTES => {
                    seat.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                    add(&peer.counts.frames_sent, 1);
                    self.put(kind, &bytes)
                }
                _ = look.tick() => {
                    look_count += 1;
                    self.look(peer, look_count)
                }
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    /// Hands on what has arrived, as far as there is room for it. While something is left, nothing more is read, so the
    /// peer waits.
    async fn deliver(
        &mut self,
        shared: &Shared,
        peer: &PeerState,
        seat: &Seat,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(), DownReason> {
        for event in self.events.drain(..) {
            if let Event::Frame { kind, payload } = event {
                peer.heard();
                self.undelivered.push_back((kind, payload));
            }
        }
        while let Some((kind, payload)) = self.undelivered.pop_front() {
            match kind {
                // Whoever does not read is not answered: its own pings would fill the memory.
                kind::PING if self.unsent.len() < UNSENT_MAX_BYTES => {
                    self.put(kind::PONG, &payload)?;
                }
                kind::PING | kind::PONG => (),
                kind::GOODBYE => return Err(DownReason::Goodbye),
                kind::DICTIONARY => {
                    let bytes = payload;
                    let command = Command::Frame {
                        session: seat.number,
                        kind,
                        bytes,
                    };
                    shared.commands.send(command).await;
                }
                kind if kind >= kind::FREE_MIN => {
                    let bytes = match peer.room.take_in(payload) {
                        Ok(bytes) => bytes,
                        Err(payload) => {
                            self.undelivered.push_front((kind, payload));
                            return Ok(());
                        }
                    };
                    let event = LinkEvent::Frame {
                        peer: peer.name.clone(),
                        kind,
                        bytes,
                    };
                    emit(shared, event, stopping).await?;
                }
                _ => add(&peer.counts.unknown_kinds, 1),
            }
            add(&peer.counts.frames_received, 1);
        }
        Ok(())
    }

    /// Looks after the link: a ping each second, and whether anything is heard.
    fn look(&mut self, peer: &PeerState, look_count: u32) -> Result<(), DownReason> {
        let silent_ms = peer.silent_ms().unwrap_or_default();
        if silent_ms > SILENCE_MAX.as_millis() as u64 {
            return Err(DownReason::Silent { silent_ms });
        }
        // A ping that waits behind others tells nothing.
        if look_count.is_multiple_of(PING_LOOKS) && self.unsent.is_empty() {
            self.put(kind::PING, &look_count.to_be_bytes())?;
        }
        Ok(())
    }

    async fn say_goodbye(&mut self) {
        if self.put(kind::GOODBYE, &[]).is_ok() {
            // A peer that does not take it learns by the connection's end.
            let _ = timeout(GOODBYE_TIMEOUT, self.write_all()).await;
        }
    }

    fn put(&mut self, kind: u16, payload: &[u8]) -> Result<(), DownReason> {
        let put = self.session.send(kind, payload, &mut self.unsent);
        put.map_err(|error| DownReason::Failed(error.to_string()))
    }

    /// Takes what has come in; 0 if that was nothing.
    fn read(&mut self) -> Result<usize, DownReason> {
        match self.tcp.try_read(&mut self.buffer) {
            Ok(0) => Err(DownReason::Closed),
            Ok(read_bytes) => {
                let bytes = &self.buffer[..read_bytes];
                self.session
                    .receive(bytes, &mut self.unsent, &mut self.events)?;
                Ok(read_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }

    /// Sends what goes now.
    fn write(&mut self) -> Result<usize, DownReason> {
        match self.tcp.try_write(&self.unsent) {
            Ok(written_bytes) => {
                self.unsent.drain(..written_bytes);
                Ok(written_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }

    async fn write_all(&mut self) -> Result<(), DownReason> {
        while !self.unsent.is_empty() {
            self.tcp.writable().await.map_err(failed)?;
            self.write()?;
        }
        Ok(())
    }
}

/// Tells the daemon; waits while it is busy, but not for one that ends.
async fn emit(
    shared: &Shared,
    event: LinkEvent,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), DownReason> {
    tokio::select! {
        biased;
        sent = shared.events.send(event) => sent.map_err(|_| DownReason::Stopped),
        () = stopped(stopping) => Err(DownReason::Stopped),
    }
}

fn failed(error: io::Error) -> DownReason {
    DownReason::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_does_not_go_by_the_congestion_control_of_the_system() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a listener");
        let address = listener.local_addr().expect("its address");
        let tcp = TcpStream::connect(address).await.expect("a connection");
        be_impatient(&tcp);
        let name = socket2::SockRef::from(&tcp).tcp_congestion();
        let name = String::from_utf8(name.expect("a name")).expect("text");
        assert_eq!(name.trim_end_matches('\0'), "reno");
    }
}
