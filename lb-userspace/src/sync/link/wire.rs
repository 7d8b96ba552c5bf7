//! The thread of the datagrams: it owns the UDP socket, keeps the heartbeat, and hands on what arrives.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::beats::{Beat, Beats, echo_age_ms};
use super::listen::set_freebind;
use super::shared::{PeerState, Shared, add};
use super::{LinkEvent, STATUS_AGE_MAX};
use crate::sync::datagram::{
    DATAGRAM_MAX_BYTES, DatagramKey, Opener, Rejected, Sealer, session_of,
};
use crate::sync::kind;
use crate::sync::replicate::replicator::{FlowsStatus, Outlet, Replicator};
use crate::sync::replicate::table::{Now, SharedTable};

/// Commands that wait for the thread.
const COMMANDS_MAX: usize = 1024;
/// Commands taken before the thread looks at the time again.
const TAKE_MAX: usize = 64;
/// Datagrams taken before the thread looks at the time again.
const RECEIVE_MAX: usize = 256;
/// The socket's buffers: a whole window of flows from each of several peers, as the kernel accounts them. Unit: bytes.
const BUFFER_BYTES: usize = 4 << 20;
/// Between two looks at how replication stands, for the status. Unit: microseconds.
const STATUS_US: u64 = STATUS_AGE_MAX.as_micros() as u64;

/// What the thread is told.
pub(super) enum Command {
    /// A session is up.
    Up {
        peer: Arc<PeerState>,
        session: u64,
        /// For what this node sends.
        seal: DatagramKey,
        /// For what the peer sends.
        open: DatagramKey,
    },
    /// A session has ended.
    Down { session: u64 },
    /// A frame of the replication's kinds has arrived.
    Frame {
        session: u64,
        kind: u16,
        bytes: Vec<u8>,
    },
    /// The flow table to be shared from now on; `None`: no table.
    Table(Option<Box<dyn SharedTable>>),
    /// This node has given its flows up to a peer.
    TellAges,
    /// A datagram of the daemon's.
    Datagram {
        peer: String,
        kind: u16,
        bytes: Vec<u8>,
    },
}

/// The way to the thread.
pub(super) struct Commands {
    sender: mpsc::Sender<Command>,
    waker: UnixStream,
    is_stopping: Arc<AtomicBool>,
}

impl Commands {
    /// Tells the thread; waits while too much waits for it.
    pub(super) async fn send(&self, command: Command) {
        // A thread that has ended needs nothing any more.
        let _ = self.sender.send(command).await;
        self.wake();
    }

    /// Tells the thread, unless too much waits for it.
    pub(super) fn try_send(&self, command: Command) -> Result<(), ()> {
        self.sender.try_send(command).map_err(|_| ())?;
        self.wake();
        Ok(())
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake();
    }

    /// Makes the thread look.
    pub(super) fn wake(&self) {
        // If the pipe is full, the thread is about to look.
        let _ = (&self.waker).write(&[0]);
    }
}

/// The thread's own.
pub(super) struct Wire {
    socket: UdpSocket,
    woken: UnixStream,
    commands: mpsc::Receiver<Command>,
    is_stopping: Arc<AtomicBool>,
}

impl Wire {
    /// Binds the socket.
    pub(super) fn bind(address: SocketAddr) -> io::Result<(Self, Commands)> {
        let socket = bind(address).map_err(|error| {
            let text = format!("cannot listen at [cluster] listen, UDP {address}: {error}");
            io::Error::new(error.kind(), text)
        })?;
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let is_stopping = Arc::<AtomicBool>::default();
        let wire = Self {
            socket,
            woken,
            commands,
            is_stopping: Arc::clone(&is_stopping),
        };
        let commands = Commands {
            sender,
            waker,
            is_stopping,
        };
        Ok((wire, commands))
    }

    /// Starts the thread.
    pub(super) fn spawn(self, shared: Arc<Shared>) -> io::Result<thread::JoinHandle<()>> {
        let mut engine = Engine {
            wire: self,
            shared,
            sessions: Sessions {
                all: Vec::new(),
                sealed: Vec::with_capacity(DATAGRAM_MAX_BYTES),
            },
            replicator: Replicator::new(),
            next_beat_us: 0,
            beat_number: 0,
            status_us: 0,
            beat: Vec::new(),
        };
        let thread = thread::Builder::new().name("lbd-link".to_owned());
        thread.spawn(move || engine.run())
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    set_freebind(&socket, address)?;
    socket.bind(&address.into())?;
    // Without CAP_NET_ADMIN, as much as the system allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    Ok(socket.into())
}

/// A session, as the thread knows it.
struct Ends {
    number: u64,
    peer: Arc<PeerState>,
    /// The peer's session number in its datagrams.
    open_session: u64,
    sealer: Sealer,
    opener: Opener,
    beats: Beats,
}

struct Sessions {
    all: Vec<Ends>,
    sealed: Vec<u8>,
}

struct Engine {
    wire: Wire,
    shared: Arc<Shared>,
    sessions: Sessions,
    replicator: Replicator<Box<dyn SharedTable>>,
    next_beat_us: u64,
    /// The number of the payload that was sent last.
    beat_number: u64,
    beat: Vec<u8>,
    /// When the status was written last. Unit: microseconds.
    status_us: u64,
}

/// Where replication sends what it has to say.
struct Way<'a> {
    sessions: &'a mut Sessions,
    socket: &'a UdpSocket,
    shared: &'a Shared,
}

impl Outlet for Way<'_> {
    fn datagram(&mut self, session: u64, kind: u16, payload: &[u8]) {
        let Sessions { all, sealed } = &mut *self.sessions;
        if let Some(ends) = all.iter_mut().find(|ends| ends.number == session) {
            ends.send(self.socket, kind, payload, sealed);
        }
    }

    fn frame(&mut self, session: u64, kind: u16, payload: Vec<u8>) {
        let mut all = self.sessions.all.iter();
        if let Some(ends) = all.find(|ends| ends.number == session) {
            // If it cannot be sent, the session is over, or ends for it.
            let _ = self
                .shared
                .send_frame(&ends.peer.name, Some(session), kind, payload);
        }
    }
}

impl Engine {
    fn run(&mut self) {
        let mut is_more_to_take = false;
        while !self.wire.is_stopping.load(Ordering::Acquire) && !self.shared.events.is_closed() {
            if !is_more_to_take {
                self.wait();
            }
            is_more_to_take = self.take_commands();
            self.receive();
            self.replicate();
            self.keep_the_beat();
        }
    }

    /// Until something comes in, or something is due.
    fn wait(&mut self) {
        let replicate_us = self.replicator.deadline_us().unwrap_or(u64::MAX);
        let due_us = self.next_beat_us.min(replicate_us).saturating_sub(now_us());
        let fds = [self.wire.socket.as_fd(), self.wire.woken.as_fd()];
        wait_readable(&fds, Duration::from_micros(due_us));
        let mut bytes = [0; 64];
        while matches!((&self.wire.woken).read(&mut bytes), Ok(1..)) {}
    }

    /// Takes what it is told, but not for ever; returns whether there may be more.
    fn take_commands(&mut self) -> bool {
        for _ in 0..TAKE_MAX {
            let Ok(command) = self.wire.commands.try_recv() else {
                return false;
            };
            match command {
                Command::Up {
                    peer,
                    session,
                    seal,
                    open,
                } => {
                    self.sessions.all.push(Ends {
                        number: session,
                        peer,
                        open_session: open.session,
                        sealer: Sealer::new(&seal),
                        opener: Opener::new(&open),
                        beats: Beats::default(),
                    });
                    self.next_beat_us = 0;
                    self.begin(session);
                }
                Command::Down { session } => {
                    let over = self
                        .sessions
                        .all
                        .extract_if(.., |ends| ends.number == session);
                    over.for_each(|ends| ends.peer.set_flows(FlowsStatus::default()));
                    self.replicator.session_down(session);
                }
                Command::Frame {
                    session,
                    kind,
                    bytes,
                } => self.take_frame(session, kind, &bytes),
                Command::Table(table) => {
                    self.replicator.detach();
                    if let Some(table) = table {
                        self.replicator.attach(table, Now { us: now_us() });
                    }
                }
                Command::TellAges => self.replicator.tell_ages(),
                Command::Datagram { peer, kind, bytes } => {
                    let Sessions { all, sealed } = &mut self.sessions;
                    if let Some(ends) = all.iter_mut().find(|ends| ends.peer.name == peer) {
                        ends.send(&self.wire.socket, kind, &bytes, sealed);
                    }
                }
            }
        }
        true
    }

    /// Takes what has arrived, but not for ever.
    fn receive(&mut self) {
        // One byte more: what is longer is of somebody else.
        let mut buffer = [0; DATAGRAM_MAX_BYTES + 1];
        for _ in 0..RECEIVE_MAX {
            match self.wire.socket.recv(&mut buffer) {
                Ok(len_bytes) => self.take_datagram(&mut buffer[..len_bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of an earlier datagram: its way is broken, which its loss tells as well.
                Err(_) => (),
            }
        }
    }

    fn take_datagram(&mut self, datagram: &mut [u8]) {
        let session = session_of(datagram);
        let ends = self
            .sessions
            .all
            .iter_mut()
            .find(|ends| Some(ends.open_session) == session);
        let Some(ends) = ends else {
            return add(&self.shared.stranger_datagrams, 1);
        };
        let len_bytes = datagram.len();
        let counts = &ends.peer.counts;
        let (kind, payload) = match ends.opener.open(datagram) {
            Ok(opened) => opened,
            Err(Rejected::Replayed) => return add(&counts.replayed, 1),
            Err(Rejected::Forged) => return add(&counts.forged, 1),
            Err(Rejected::Stranger) => return add(&self.shared.stranger_datagrams, 1),
        };
        add(&counts.datagrams_received, 1);
        add(&counts.datagram_bytes_received, len_bytes);
        counts
            .missing
            .store(ends.opener.missing_count(), Ordering::Relaxed);
        ends.peer.heard();
        let peer = || ends.peer.name.clone();
        let event = match kind {
            kind::HEARTBEAT => {
                let Some((beat, payload)) = payload.split_at_checked(size_of::<Beat>()) else {
                    return add(&counts.malformed, 1);
                };
                let beat: Beat = bytemuck::pod_read_unaligned(beat);
                let now_us = now_us();
                let is_latest = ends.beats.take(&beat, now_us);
                let rtt_us = ends.beats.rtt_us.min(u32::MAX.into());
                ends.peer.counts.rtt_us.store(rtt_us, Ordering::Relaxed);
                if !is_latest {
                    return;
                }
                LinkEvent::Heartbeat {
                    peer: peer(),
                    payload: payload.to_vec(),
                    payload_age_ms: beat.payload_age_ms,
                    echo_age_ms: echo_age_ms(&beat, now_us),
                    at: Instant::now(),
                }
            }
            kind::FLOWS | kind::FLOWS_ACK => {
                let now = Now { us: now_us() };
                let taken = self
                    .replicator
                    .take_datagram(ends.number, kind, payload, now);
                if taken.is_err() {
                    add(&counts.malformed, 1);
                }
                return;
            }
            kind if kind >= kind::FREE_MIN => LinkEvent::Datagram {
                peer: peer(),
                kind,
                bytes: payload.to_vec(),
            },
            _ => return add(&counts.unknown_kinds, 1),
        };
        if self.shared.events.try_send(event).is_err() {
            add(&ends.peer.counts.overruns, 1);
        }
    }

    fn begin(&mut self, session: u64) {
        let mut way = Way {
            sessions: &mut self.sessions,
            socket: &self.wire.socket,
            shared: &self.shared,
        };
        self.replicator
            .session_up(session, Now { us: now_us() }, &mut way);
    }

    fn take_frame(&mut self, session: u64, kind: u16, bytes: &[u8]) {
        let taken = self.replicator.take_frame(session, kind, bytes);
        let mut all = self.sessions.all.iter();
        if let (Err(_), Some(ends)) = (taken, all.find(|ends| ends.number == session)) {
            add(&ends.peer.counts.malformed, 1);
        }
    }

    /// Does what is due for the flows, and writes down how they stand.
    fn replicate(&mut self) {
        let now = Now { us: now_us() };
        let mut way = Way {
            sessions: &mut self.sessions,
            socket: &self.wire.socket,
            shared: &self.shared,
        };
        self.replicator.tick(now, &mut way);
        if now.us < self.status_us + STATUS_US {
            return;
        }
        self.status_us = now.us;
        for ends in &self.sessions.all {
            let status = self.replicator.status(ends.number, now);
            ends.peer.set_flows(status.unwrap_or_default());
            // Asked for only where they can be told: each is once.
            let Ok(place) = self.shared.events.try_reserve() else {
                add(&ends.peer.counts.overruns, 1);
                continue;
            };
            let backends = self.replicator.take_strangers(ends.number);
            if !backends.is_empty() {
                let peer = ends.peer.name.clone();
                place.send(LinkEvent::Strangers { peer, backends });
            }
        }
    }

    /// Sends heartbeats if they are due, or say something new.
    fn keep_the_beat(&mut self) {
        let now_us = now_us();
        let payload = self.shared.beat();
        if now_us < self.next_beat_us && payload.number == self.beat_number {
            return;
        }
        self.beat_number = payload.number;
        self.next_beat_us = now_us + self.shared.heartbeat.as_micros() as u64;
        let Sessions { all, sealed } = &mut self.sessions;
        for ends in all {
            let (echo_us, came_us) = ends.beats.last;
            let beat = Beat {
                sent_us: now_us,
                echo_us,
                held_us: now_us.saturating_sub(came_us).min(u32::MAX.into()) as u32,
                payload_age_ms: payload.set_at.elapsed().as_millis().min(u32::MAX.into()) as u32,
            };
            self.beat.clear();
            self.beat.extend_from_slice(bytemuck::bytes_of(&beat));
            self.beat.extend_from_slice(&payload.bytes);
            ends.send(&self.wire.socket, kind::HEARTBEAT, &self.beat, sealed);
        }
    }
}

impl Ends {
    fn send(&mut self, socket: &UdpSocket, kind: u16, payload: &[u8], sealed: &mut Vec<u8>) {
        self.sealer.seal(kind, payload, sealed);
        let counts = &self.peer.counts;
        // What cannot be sent now is lost, like what the network loses.
        if socket.send_to(sealed, self.peer.address).is_ok() {
            add(&counts.datagrams_sent, 1);
            add(&counts.datagram_bytes_sent, sealed.len());
        }
    }
}

/// The packet path's clock (`CLOCK_MONOTONIC`). Unit: microseconds.
pub(crate) fn now_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("this clock is always there");
    Duration::from(time).as_micros() as u64
}

/// Waits until one of these can be read, or for so long.
fn wait_readable(fds: &[BorrowedFd<'_>; 2], timeout: Duration) {
    let mut fds = fds.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the descriptors are open and the array and the time are valid during the call. Whatever it
    // answers, the caller looks at everything.
    unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        );
    }
}
