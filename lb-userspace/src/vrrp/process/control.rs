//! The socket on which `lbd` says what is to be done: JSON objects, one a line.
//!
//! Whoever may open it (its owner alone, mode 0600) is believed, but may be slow, stuck or confused: lines, waiting
//! answers and connections are bounded, and nobody is waited for.

use std::collections::VecDeque;
use std::fs::{Permissions, set_permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tracing::{debug, warn};

use crate::control::{Socket, SocketError};
use crate::vrrp::protocol::{FromVrrp, ToVrrp};

/// Connections at a time: `lbd`, and a few who ask.
const CLIENTS_MAX: usize = 8;
/// A line: the facts of 4096 services, and more. Unit: bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Answers that a client has not read; a slower one is cut off. Unit: bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// What is taken from one client in one round, so that it cannot keep the process busy. Unit: bytes.
const ROUND_BYTES_MAX: usize = 2 << 20;
/// One read. Unit: bytes.
const READ_BYTES: usize = 65_536;
const MODE: u32 = 0o600;
/// How long a predecessor may take to be gone.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether it is.
const BIND_POLL: Duration = Duration::from_millis(1);

/// Who has said something; never used twice.
pub(super) type ClientId = u64;

/// The socket and its clients.
pub(super) struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
    next_id: ClientId,
    // Removes the socket's files, and holds the lock that makes this process the only one behind it.
    _socket: Socket,
}

struct Client {
    id: ClientId,
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    /// Whether it has said what is to be done: it is `lbd`, not one who only asks.
    is_master: bool,
    is_over: bool,
}

/// What has happened at the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A client has come.
    Came(ClientId),
    /// A client has said something.
    Said(ClientId, ToVrrp),
    /// The last client that had sent facts or a configuration has gone.
    MasterGone,
}

impl Control {
    /// Binds the socket.
    ///
    /// # Errors
    /// If another process serves it, or the system refuses.
    pub(super) fn bind(path: &Path) -> anyhow::Result<Self> {
        let socket = bind(path).map_err(|error| match error {
            SocketError::InUse { path, owner } => anyhow!(
                "{}: lbd-vrrp is running already{owner}; stop it, or give this one another --socket",
                path.display()
            ),
            other => other.into(),
        })?;
        set_permissions(path, Permissions::from_mode(MODE))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        let listener = socket
            .blocking_listener()
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            next_id: 0,
            _socket: socket,
        })
    }

    /// What to wait for: each descriptor, and whether there is something to write to it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Wait)> {
        let clients = self.clients.iter().map(|client| {
            let wait = match client.outgoing.is_empty() {
                true => Wait::Read,
                false => Wait::ReadWrite,
            };
            (client.stream.as_fd(), wait)
        });
        std::iter::once((self.listener.as_fd(), Wait::Read)).chain(clients)
    }

    /// Takes in and gives out what can be without waiting.
    pub(super) fn round(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.accept(&mut events);
        for client in &mut self.clients {
            client.read(&mut events);
            client.write();
        }
        let masters = |clients: &[Client]| clients.iter().filter(|client| client.is_master).count();
        let before = masters(&self.clients);
        self.clients.retain(|client| !client.is_over);
        if before > 0 && masters(&self.clients) == 0 {
            events.push(Event::MasterGone);
        }
        events
    }

    /// Whether one who says what is to be done is connected.
    pub(super) fn has_master(&self) -> bool {
        self.clients.iter().any(|client| client.is_master)
    }

    /// Tells one client.
    pub(super) fn tell(&mut self, id: ClientId, message: &FromVrrp) {
        let client = self.clients.iter_mut().find(|client| client.id == id);
        if let (Some(client), Some(line)) = (client, line(message)) {
            client.queue(&line);
        }
    }

    /// Tells everybody.
    pub(super) fn tell_all(&mut self, message: &FromVrrp) {
        if self.clients.is_empty() {
            return;
        }
        let Some(line) = line(message) else { return };
        for client in &mut self.clients {
            client.queue(&line);
        }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS_MAX {
                warn!("more than {CLIENTS_MAX} connections: one is refused");
                continue;
            }
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next_id += 1;
            events.push(Event::Came(self.next_id));
            self.clients.push(Client {
                id: self.next_id,
                stream,
                incoming: Vec::new(),
                outgoing: VecDeque::new(),
                is_master: false,
                is_over: false,
            });
        }
    }
}

/// A process that was just killed holds its lock until the kernel is done with all its sockets: its successor waits.
fn bind(path: &Path) -> Result<Socket, SocketError> {
    let until = Instant::now() + PREDECESSOR_TIMEOUT;
    loop {
        match Socket::bind(path) {
            Err(SocketError::InUse { .. }) if Instant::now() < until => sleep(BIND_POLL),
            bound => return bound,
        }
    }
}

/// What to wait for at a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
}

/// Everything in our messages can be written as JSON: keys of maps are strings.
fn line(message: &FromVrrp) -> Option<Vec<u8>> {
    let written = serde_json::to_vec(message);
    let mut line = written
        .inspect_err(|error| warn!("a message cannot be written: {error}"))
        .ok()?;
    line.push(b'\n');
    Some(line)
}

impl Client {
    fn queue(&mut self, line: &[u8]) {
        if self.outgoing.len() + line.len() > WAITING_BYTES_MAX {
            warn!("a client does not read what it is told: it is cut off");
            self.is_over = true;
            return;
        }
        self.outgoing.extend(line);
        self.write();
    }

    fn write(&mut self) {
        while !self.outgoing.is_empty() && !self.is_over {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(0) => self.is_over = true,
                Ok(written_bytes) => drop(self.outgoing.drain(..written_bytes)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.end(&error),
            }
        }
    }

    fn read(&mut self, events: &mut Vec<Event>) {
        let mut buffer = vec![0; READ_BYTES];
        let mut taken_bytes = 0;
        while !self.is_over && taken_bytes < ROUND_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(read_bytes) => {
                    taken_bytes += read_bytes;
                    self.incoming
                        .extend(buffer.get(..read_bytes).unwrap_or_default());
                    self.split(events);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.end(&error),
            }
        }
    }

    fn split(&mut self, events: &mut Vec<Event>) {
        while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.incoming.drain(..=end).collect();
            self.take(&line, events);
        }
        if self.incoming.len() > LINE_BYTES_MAX {
            warn!("a line of more than {LINE_BYTES_MAX} bytes: the client is cut off");
            self.is_over = true;
        }
    }

    fn take(&mut self, line: &[u8], events: &mut Vec<Event>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match serde_json::from_slice::<ToVrrp>(line) {
            Ok(order) => {
                let is_of_master = matches!(order, ToVrrp::Configure(_) | ToVrrp::Facts(_));
                self.is_master |= is_of_master;
                events.push(Event::Said(self.id, order));
            }
            Err(error) => {
                let reason = format!("not understood: {error}");
                debug!("a client's line is {reason}");
                if let Some(line) = self::line(&FromVrrp::Refused { reason }) {
                    self.queue(&line);
                }
            }
        }
    }

    fn end(&mut self, error: &io::Error) {
        debug!("a client has gone: {error}");
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::vrrp::protocol::{Facts, Status};

    fn control() -> (tempfile::TempDir, Control, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.vrrp");
        let control = Control::bind(&path).unwrap();
        (directory, control, path)
    }

    #[test]
    fn lines_are_taken_whole_and_the_master_is_missed() {
        let (_directory, mut control, path) = control();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mut lbd = UnixStream::connect(&path).unwrap();
        let facts = serde_json::to_string(&ToVrrp::Facts(Facts::default())).unwrap();
        let (head, tail) = facts.split_at(7);
        lbd.write_all(head.as_bytes()).unwrap();
        assert_eq!(control.round(), [Event::Came(1)]);
        assert!(!control.has_master());
        lbd.write_all(format!("{tail}\n\n\"stop\"\n").as_bytes())
            .unwrap();
        let said = [
            Event::Said(1, ToVrrp::Facts(Facts::default())),
            Event::Said(1, ToVrrp::Stop),
        ];
        assert_eq!(control.round(), said);
        assert!(control.has_master());
        drop(lbd);
        assert_eq!(control.round(), [Event::MasterGone]);
        assert!(!control.has_master());
    }

    #[test]
    fn nonsense_is_answered_and_harms_nobody() {
        let (_directory, mut control, path) = control();
        let mut confused = UnixStream::connect(&path).unwrap();
        confused.write_all(b"{\"explode\":1}\n\xff\xfe\n").unwrap();
        assert_eq!(control.round(), [Event::Came(1)]);
        let mut answers = BufReader::new(&confused);
        for _ in 0..2 {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert!(line.contains("not understood"), "{line}");
        }
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let (_directory, mut control, path) = control();
        let mut hostile = UnixStream::connect(&path).unwrap();
        hostile.set_nonblocking(true).unwrap();
        let chunk = vec![b'x'; READ_BYTES];
        let mut sent_bytes = 0;
        while sent_bytes <= LINE_BYTES_MAX + ROUND_BYTES_MAX {
            match hostile.write(&chunk) {
                Ok(written_bytes) => sent_bytes += written_bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => drop(control.round()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    break;
                }
            }
        }
        control.round();
        assert!(control.clients.is_empty());
    }

    #[test]
    fn one_who_does_not_read_is_cut_off_and_one_too_many_refused() {
        let (_directory, mut control, path) = control();
        let clients: Vec<UnixStream> = (0..=CLIENTS_MAX)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        assert_eq!(control.round().len(), CLIENTS_MAX);
        let status = FromVrrp::Status(Status {
            version: "x".repeat(60_000),
            ..Status::default()
        });
        for _ in 0..WAITING_BYTES_MAX / 60_000 + 8 {
            control.tell_all(&status);
        }
        control.round();
        assert!(control.clients.is_empty());
        drop(clients);
    }

    #[test]
    fn a_second_process_is_refused() {
        let (_directory, _control, path) = control();
        let Err(error) = Control::bind(&path) else {
            panic!("the socket is in use")
        };
        assert!(
            error.to_string().contains("lbd-vrrp is running already"),
            "{error}"
        );
    }
}
