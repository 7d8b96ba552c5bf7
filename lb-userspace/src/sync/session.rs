//! A session of the peer link over a stream: bytes in, bytes and events out. No clock and no I/O.
//!
//! ```text
//!   dialler                           acceptor
//!   hello            ──────────▶      checks version and name
//!   checks them      ◀──────────      hello
//!   e, psk           ──────────▶      knows that the other one has the secret, or replays one who had
//!                    ◀──────────      e, ee
//!   welcome          ──────────▶      knows that the other one has it: the session is up
//!   is up as well    ◀──────────      welcome
//! ```
//!
//! The handshake is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (noiseprotocol.org, revision 34) with the cluster's
//! secret as the pre-shared key and both hellos as prologue. Keys are new in each session, so nothing of another
//! session is ever accepted. Before the handshake, messages are `{ length: u16, type: u8, body }`, after it
//! `{ length: u16, ciphertext of { kind: u16, payload } }`, in network byte order. Who refuses says why, in clear.

use std::collections::BTreeSet;

use snow::{HandshakeState, TransportState};

use super::hello::{HELLO_MAX_BYTES, Hello, Refusal, Version};
use super::kind;

/// The largest payload of a frame. Unit: bytes.
pub const FRAME_MAX_BYTES: usize = 65_000;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const LENGTH_BYTES: usize = 2;
const KIND_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
/// The longest message before the handshake is done, its type included. Unit: bytes.
const CLEAR_MAX_BYTES: usize = 1 + HELLO_MAX_BYTES;
/// The longest reason that is shown of a peer's refusal. Unit: characters.
const REASON_MAX_CHARS: usize = 300;

const TYPE_HELLO: u8 = 1;
const TYPE_REFUSAL: u8 = 2;
const TYPE_HANDSHAKE: u8 = 3;

/// Which end of the stream this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has connected, and speaks first.
    Dialler,
    /// It was connected to.
    Acceptor,
}

/// What a session needs to know from the start.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which end it is.
    pub role: Role,
    /// This node.
    pub hello: Hello,
    /// The names that the other end may have.
    pub expected: BTreeSet<String>,
    /// The pre-shared key.
    pub key: [u8; 32],
    /// The payload of this end's welcome.
    pub welcome: Vec<u8>,
}

/// What has come of received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The other end has the secret and is who it says: once, before any frame.
    Up {
        /// The other end.
        hello: Hello,
        /// What both speak.
        version: Version,
        /// The payload of its welcome.
        welcome: Vec<u8>,
    },
    /// A frame.
    Frame {
        /// See [`kind`].
        kind: u16,
        /// What is in it.
        payload: Vec<u8>,
    },
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is no session yet.
    #[error("the session is not up yet")]
    NotUp,
    /// The payload is too long.
    #[error("a frame of kind {kind} has {len_bytes} bytes: {FRAME_MAX_BYTES} are possible")]
    TooLong {
        /// The frame's kind.
        kind: u16,
        /// Its length.
        len_bytes: usize,
    },
    /// The session has carried as many frames as its keys can (2^64 - 1).
    #[error("the session's keys are used up")]
    Exhausted,
}

enum Phase {
    /// The other end's hello is awaited.
    Hello,
    /// The other end's part of the handshake is awaited.
    Handshake {
        noise: Box<HandshakeState>,
        peer: Hello,
    },
    /// The other end's welcome is awaited.
    Welcome {
        noise: Box<TransportState>,
        peer: Hello,
    },
    /// Frames come and go.
    Up { noise: Box<TransportState> },
    /// It has ended.
    Ended,
}

/// A message, and the bytes behind it.
type MessageAndRest<'a> = (&'a [u8], &'a [u8]);

/// One end of a session.
pub struct Session {
    terms: Terms,
    phase: Phase,
    /// The name in the other end's hello.
    claimed: Option<String>,
    /// Received bytes that are no whole message yet: at most one message and what was read with its end.
    received: Vec<u8>,
}

impl Session {
    /// A session on a stream that has just been connected. Appends what is to be sent.
    pub fn new(terms: Terms, out: &mut Vec<u8>) -> Self {
        if terms.role == Role::Dialler {
            put_clear(TYPE_HELLO, &terms.hello.to_bytes(), out);
        }
        Self {
            terms,
            phase: Phase::Hello,
            claimed: None,
            received: Vec::new(),
        }
    }

    /// Whether frames can be sent.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Who the other end says it is, once it has said so: true if the session is up.
    pub fn claimed(&self) -> Option<&str> {
        self.claimed.as_deref()
    }

    /// Takes received bytes. Appends what is to be sent and what has happened.
    ///
    /// # Errors
    /// [`Refusal`]: the session has ended. What was appended is to be sent first, for it says why; then the stream
    /// is closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.received.extend_from_slice(bytes);
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Some((message, after)) = self.split_message(rest)? {
            rest = after;
            if let Err(refusal) = self.take_message(message, out, events) {
                self.end(&refusal, out);
                return Err(refusal);
            }
        }
        self.received = rest.to_vec();
        Ok(())
    }

    /// Appends a frame to what is to be sent.
    ///
    /// # Errors
    /// [`FrameError`]: nothing was appended.
    pub fn send(&mut self, kind: u16, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let Phase::Up { noise } = &mut self.phase else {
            return Err(FrameError::NotUp);
        };
        put_frame(noise, kind, payload, out)
    }

    /// The first whole message of `bytes`, and what follows it.
    fn split_message<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<Option<MessageAndRest<'a>>, Refusal> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let is_clear = matches!(self.phase, Phase::Hello | Phase::Handshake { .. });
        if is_clear && length > CLEAR_MAX_BYTES {
            self.phase = Phase::Ended;
            return Err(Refusal::NotOurs);
        }
        Ok(rest.split_at_checked(length))
    }

    fn take_message(
        &mut self,
        message: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Hello => self.take_hello(clear_body(message, TYPE_HELLO)?, out)?,
            Phase::Handshake { noise, peer } => {
                let body = clear_body(message, TYPE_HANDSHAKE)?;
                self.take_handshake(noise, peer, body, out)?
            }
            Phase::Welcome { mut noise, peer } => {
                let (kind, welcome) = open_frame(&mut noise, message)?;
                if kind != kind::WELCOME {
                    return Err(Refusal::Malformed("its first frame is no welcome"));
                }
                let version = self.agreed(&peer)?;
                events.push(Event::Up {
                    hello: peer,
                    version,
                    welcome,
                });
                Phase::Up { noise }
            }
            Phase::Up { mut noise } => {
                let (kind, payload) = open_frame(&mut noise, message)?;
                events.push(Event::Frame { kind, payload });
                Phase::Up { noise }
            }
            Phase::Ended => return Err(Refusal::Malformed("it goes on after the end")),
        };
        Ok(())
    }

    fn take_hello(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Phase, Refusal> {
        let peer = Hello::parse(body)?;
        self.claimed = Some(peer.node.clone());
        peer.check_name(&self.terms.expected)?;
        self.agreed(&peer)?;
        let ours = self.terms.hello.to_bytes();
        let prologue = match self.terms.role {
            Role::Dialler => prologue(&ours, body),
            Role::Acceptor => prologue(body, &ours),
        };
        let mut noise = Box::new(self.handshake(&prologue));
        match self.terms.role {
            Role::Dialler => put_handshake(&mut noise, out),
            Role::Acceptor => put_clear(TYPE_HELLO, &ours, out),
        }
        Ok(Phase::Handshake { noise, peer })
    }

    fn take_handshake(
        &self,
        mut noise: Box<HandshakeState>,
        peer: Hello,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Phase, Refusal> {
        let mut payload = [0; CLEAR_MAX_BYTES];
        noise
            .read_message(body, &mut payload)
            .map_err(|_| Refusal::Secret)?;
        if self.terms.role == Role::Acceptor {
            put_handshake(&mut noise, out);
        }
        // The pattern has two messages, and both have gone through.
        let mut noise = Box::new(noise.into_transport_mode().map_err(|_| Refusal::Secret)?);
        put_frame(&mut noise, kind::WELCOME, &self.terms.welcome, out)
            .map_err(|_| Refusal::Malformed("this end's welcome is too long"))?;
        Ok(Phase::Welcome { noise, peer })
    }

    fn handshake(&self, prologue: &[u8]) -> HandshakeState {
        let builder = PATTERN
            .parse()
            .map(snow::Builder::new)
            .and_then(|builder| builder.psk(0, &self.terms.key))
            .and_then(|builder| builder.prologue(prologue));
        let state = builder.and_then(|builder| match self.terms.role {
            Role::Dialler => builder.build_initiator(),
            Role::Acceptor => builder.build_responder(),
        });
        state.expect("the pattern is a constant, and its ciphers are built in")
    }

    fn agreed(&self, peer: &Hello) -> Result<Version, Refusal> {
        let (ours, theirs) = (self.terms.hello.version, peer.version);
        ours.agree(theirs).ok_or(Refusal::Version { ours, theirs })
    }

    /// Tells the other end why this one ends; not of the end of a session that was encrypted, and not what the
    /// other end said itself.
    fn end(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        let text = match refusal {
            Refusal::Said(_) | Refusal::NotOurs | Refusal::Malformed(_) => return,
            Refusal::Version { ours, theirs } => {
                format!(
                    "it speaks version {ours} of the peer link, and was called in version {theirs}"
                )
            }
            Refusal::Name { found, .. } => {
                format!("its config has no [[cluster.peer]] {found:?} that is to connect here")
            }
            Refusal::Secret => "it has another [cluster] secret_file".to_owned(),
        };
        let text = format!("{}: {text}", self.terms.hello.node);
        put_clear(
            TYPE_REFUSAL,
            &text.as_bytes()[..text.len().min(HELLO_MAX_BYTES)],
            out,
        );
    }
}

/// What the handshake binds: who has said what in clear.
fn prologue(dialler: &[u8], acceptor: &[u8]) -> Vec<u8> {
    let mut prologue = Vec::with_capacity(2 * LENGTH_BYTES + dialler.len() + acceptor.len());
    for hello in [dialler, acceptor] {
        prologue.extend((hello.len() as u16).to_be_bytes());
        prologue.extend(hello);
    }
    prologue
}

/// The body of a message in clear, if it is of the type that is due.
fn clear_body(message: &[u8], due: u8) -> Result<&[u8], Refusal> {
    match message.split_first() {
        Some((kind, body)) if *kind == due => Ok(body),
        Some((&TYPE_REFUSAL, body)) => Err(Refusal::Said(printable(body))),
        _ if due == TYPE_HELLO => Err(Refusal::NotOurs),
        _ => Err(Refusal::Malformed("it does not follow the handshake")),
    }
}

/// What anybody may have sent, fit to be shown.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|char| !char.is_control())
        .take(REASON_MAX_CHARS)
        .collect()
}

fn put_clear(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.extend(((body.len() + 1) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
}

fn put_handshake(noise: &mut HandshakeState, out: &mut Vec<u8>) {
    let mut message = [0; 128];
    let len_bytes = noise
        .write_message(&[], &mut message)
        .expect("it is this end's turn, and a message has 48 bytes");
    put_clear(TYPE_HANDSHAKE, &message[..len_bytes], out);
}

fn put_frame(
    noise: &mut TransportState,
    kind: u16,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    if payload.len() > FRAME_MAX_BYTES {
        return Err(FrameError::TooLong {
            kind,
            len_bytes: payload.len(),
        });
    }
    let mut clear = Vec::with_capacity(KIND_BYTES + payload.len());
    clear.extend(kind.to_be_bytes());
    clear.extend(payload);
    let cipher_bytes = clear.len() + TAG_BYTES;
    let start = out.len();
    out.extend((cipher_bytes as u16).to_be_bytes());
    out.resize(start + LENGTH_BYTES + cipher_bytes, 0);
    let written = noise.write_message(&clear, &mut out[start + LENGTH_BYTES..]);
    if written.is_err() {
        out.truncate(start);
        return Err(FrameError::Exhausted);
    }
    Ok(())
}

fn open_frame(noise: &mut TransportState, message: &[u8]) -> Result<(u16, Vec<u8>), Refusal> {
    let mut clear = vec![0; message.len()];
    let len_bytes = noise
        .read_message(message, &mut clear)
        .map_err(|_| Refusal::Malformed("a frame is not authentic"))?;
    clear.truncate(len_bytes);
    let Some((kind, _)) = clear.split_first_chunk::<KIND_BYTES>() else {
        return Err(Refusal::Malformed("a frame has no kind"));
    };
    let kind = u16::from_be_bytes(*kind);
    clear.drain(..KIND_BYTES);
    Ok((kind, clear))
}

const _: () = assert!(KIND_BYTES + FRAME_MAX_BYTES + TAG_BYTES <= u16::MAX as usize);

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
