//! One interface's link in one family: a socket, and who waits for what comes over it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{Instant, interval_at};
use tracing::debug;

use super::frame::{self, Arrival, Conversation, Family, Transport, Undelivered};
use super::ports::Ports;
use super::socket::{self, PacketSocket};
use crate::loader::readiness::readable;

/// A socket that nobody has used for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// The longest frame: generic receive offload may have put many segments together to one of 64 KiB.
const FRAME_BYTES_MAX: usize = 65_536 + frame::LINK_BYTES;

/// Frames taken from the socket before others have their turn.
const FRAMES_AT_ONCE: usize = 64;

/// For an interface that cannot be asked: what every IPv6 link carries (RFC 8200 section 5). Unit: bytes.
const MTU_UNKNOWN_BYTES: usize = 1280;

/// What every IPv4 host takes (RFC 791 section 3.1). Unit: bytes.
const MTU_MIN_BYTES: usize = 576;

/// Something that waits for packets of its conversation. None of it may wait for anything.
pub(super) trait Receiver: Send + Sync {
    /// One has come. `packet` begins with the IP header; `payload` is a datagram's.
    fn receive(&self, packet: &[u8], payload: &[u8]);
    /// One of ours was not delivered, or the link has gone.
    fn fail(&self, trouble: Trouble);
}

/// Why a conversation cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// ICMP says so.
    Undelivered(Undelivered),
    /// The interface is down or has gone.
    LinkDown,
}

/// The link.
#[derive(Debug)]
pub(super) struct Wire {
    socket: AsyncFd<PacketSocket>,
    family: Family,
    table: Mutex<Table>,
}

/// Who waits.
struct Table {
    receivers: HashMap<Conversation, Option<Arc<dyn Receiver>>>,
    ports: Ports,
    /// Since the last look whether it is still needed.
    was_used: bool,
    /// The socket is about to be closed.
    is_closed: bool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.receivers.len();
        write!(f, "Table {{ {count} receivers }}")
    }
}

/// A conversation's place on the link. Dropping it frees the port.
#[derive(Debug)]
pub(super) struct Place {
    wire: Arc<Wire>,
    conversation: Conversation,
}

impl Wire {
    /// Opens the link; a task takes what comes until nobody has needed it for [`IDLE`]. Must be called within
    /// a tokio runtime.
    pub(super) fn open(ifindex: u32, family: Family, random: u16) -> io::Result<Arc<Self>> {
        let socket = PacketSocket::open(ifindex, family)?;
        let wire = Arc::new(Self {
            socket: readable(socket)?,
            family,
            table: Mutex::new(Table {
                receivers: HashMap::new(),
                ports: Ports::beginning_at(random),
                was_used: true,
                is_closed: false,
            }),
        });
        tokio::spawn(Arc::clone(&wire).serve());
        Ok(wire)
    }

    /// Whether it still takes conversations.
    pub(super) fn is_open(&self) -> bool {
        !self.table().is_closed
    }

    /// A place with a local port of its own; `None` if there is none left.
    pub(super) fn place(
        self: &Arc<Self>,
        transport: Transport,
        source: IpAddr,
        remote: SocketAddr,
    ) -> Option<Place> {
        let mut guard = self.table();
        let table = &mut *guard;
        let wanted = Conversation {
            transport,
            local: SocketAddr::new(source, 0),
            remote,
        };
        let is_taken = |one: &Conversation| table.receivers.contains_key(one);
        let conversation = table.ports.choose(wanted, is_taken)?;
        table.receivers.insert(conversation, None);
        table.was_used = true;
        Some(Place {
            wire: Arc::clone(self),
            conversation,
        })
    }

    /// Sends a frame. One for which there is no room at the moment is lost, as on any wire.
    pub(super) fn send(&self, frame: &[u8]) -> Result<(), Trouble> {
        let Err(error) = self.socket.get_ref().send(frame) else {
            return Ok(());
        };
        match error.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Err(Trouble::LinkDown),
            _ => {
                debug!("a frame of {} bytes was not sent: {error}", frame.len());
                Ok(())
            }
        }
    }

    /// The largest IP packet. Unit: bytes.
    pub(super) fn mtu_bytes(&self, interface: &str) -> usize {
        let asked = socket::mtu_bytes(self.socket.get_ref(), interface);
        asked.map_or(MTU_UNKNOWN_BYTES, |mtu| mtu.max(MTU_MIN_BYTES))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while it was held would be a fault of one conversation; the others go on.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut looks = interval_at(Instant::now() + IDLE, IDLE);
        loop {
            tokio::select! {
                taken = self.take(&mut buffer) => {
                    if let Err(error) = taken {
                        debug!("a packet socket failed: {error}");
                        self.fail_all();
                        break;
                    }
                    // However much comes, the checks' own tasks have their turns.
                    yield_now().await;
                }
                _ = looks.tick() => if self.close_if_unused() {
                    break;
                },
            }
        }
        close(self);
    }

    /// Waits until something has come, and takes some of it.
    async fn take(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        for _ in 0..FRAMES_AT_ONCE {
            match ready.try_io(|socket| socket.get_ref().receive(buffer)) {
                Ok(Ok(Some((length, checksum)))) => {
                    if let Some(arrival) = frame::parse(self.family, &buffer[..length], checksum) {
                        self.deliver(&arrival);
                    }
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    fn deliver(&self, arrival: &Arrival<'_>) {
        let receiver = match self.table().receivers.get(&arrival.conversation) {
            Some(Some(receiver)) => Arc::clone(receiver),
            Some(None) | None => return,
        };
        match arrival.what {
            frame::What::Packet { packet, payload } => receiver.receive(packet, payload),
            frame::What::Undelivered(why) => receiver.fail(Trouble::Undelivered(why)),
        }
    }

    /// The interface is down or has gone: whoever needs it next opens it anew.
    fn fail_all(&self) {
        let receivers: Vec<_> = {
            let mut table = self.table();
            table.is_closed = true;
            table.receivers.values().flatten().cloned().collect()
        };
        for receiver in receivers {
            receiver.fail(Trouble::LinkDown);
        }
    }

    fn close_if_unused(&self) -> bool {
        let mut table = self.table();
        let was_used = std::mem::take(&mut table.was_used);
        table.is_closed = !was_used && table.receivers.is_empty();
        table.is_closed
    }
}

/// Closing waits until every CPU has let go of the socket, some 10 ms: not on the thread that asks.
fn close(wire: Arc<Wire>) {
    if let Some(wire) = Arc::into_inner(wire) {
        let socket = wire.socket.into_inner();
        drop(tokio::task::spawn_blocking(move || drop(socket)));
    }
}

impl Place {
    /// From now on, what comes is for this receiver.
    pub(super) fn listen(&self, receiver: Arc<dyn Receiver>) {
        let mut table = self.wire.table();
        table.receivers.insert(self.conversation, Some(receiver));
    }

    /// Who talks with whom.
    pub(super) const fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The link.
    pub(super) const fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let receiver = self.wire.table().receivers.remove(&self.conversation);
        // Not while the table is held: it may be the last that holds on to the link.
        drop(receiver);
    }
}

#[cfg(test)]
mod tests {
    use lb_lab::{Netns, require};

    use super::super::registry;
    use super::*;

    /// Runs `work` in a namespace of its own, where there is nothing but loopback.
    fn alone(work: impl AsyncFnOnce() + Send) {
        let netns = Netns::create("wire").unwrap();
        netns.ip("link set lo up").unwrap();
        let block_on = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work());
        };
        netns.run(block_on).unwrap();
    }

    fn place(wire: &Arc<Wire>) -> Option<Place> {
        let source = "127.0.0.1".parse().unwrap();
        wire.place(Transport::Tcp, source, "127.0.0.2:80".parse().unwrap())
    }

    #[test]
    fn a_link_is_open_as_long_as_it_is_needed() {
        if require(&["ip"]).is_missing() {
            return;
        }
        alone(async || {
            let open = || registry::wire(1, Family::V4).unwrap();
            let wire = open();
            assert!(Arc::ptr_eq(&wire, &open()), "one for all");
            let place = place(&wire).unwrap();
            assert!(!wire.close_if_unused(), "just opened");
            assert!(!wire.close_if_unused(), "somebody is there");
            drop(place);
            assert!(wire.close_if_unused() && !wire.is_open());
            assert!(!Arc::ptr_eq(&wire, &open()), "opened anew");
        });
    }

    #[test]
    fn ports_are_given_back() {
        if require(&["ip"]).is_missing() {
            return;
        }
        alone(async || {
            let wire = registry::wire(1, Family::V4).unwrap();
            let mut places: Vec<Place> = std::iter::from_fn(|| place(&wire)).collect();
            assert!(places.len() > 4_000, "{}", places.len());
            assert!(place(&wire).is_none(), "all are taken");
            let port = places.pop().map(|place| place.conversation().local);
            let again = place(&wire).map(|place| place.conversation().local);
            assert_eq!(again, port);
            drop(places);
            assert!(wire.table().receivers.is_empty());
        });
    }
}
