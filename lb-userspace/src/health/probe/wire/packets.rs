//! Datagrams and echo requests over a wire.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lb_common::abi::LinkRewrite;
use tokio::sync::Notify;

use super::frame::{self, Transport, UDP_BYTES};
use super::link::{Place, Receiver, Trouble};

/// Answers that wait to be read; further ones are lost.
const WAITING_MAX: usize = 8;

/// What is kept of an answer; what is longer is cut off. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Datagrams to one VIP, and what comes back.
pub(in crate::health::probe) struct Packets {
    mailbox: Arc<Mailbox>,
    link: LinkRewrite,
    payload_bytes_max: usize,
    place: Place,
}

#[derive(Default)]
struct Mailbox {
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Vec<u8>>,
    trouble: Option<Trouble>,
}

/// Why a datagram is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It does not fit. Unit of both: bytes.
    TooLong { bytes: usize, max: usize },
    /// It cannot be.
    Trouble(Trouble),
}

impl Packets {
    pub(super) fn new(place: Place, link: LinkRewrite, mtu_bytes: usize) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        place.listen(Arc::clone(&mailbox) as Arc<dyn Receiver>);
        let conversation = place.conversation();
        let family = frame::Family::of(conversation.local.ip());
        let header_bytes = match conversation.transport {
            Transport::Udp => family.ip_bytes() + UDP_BYTES,
            Transport::Echo | Transport::Tcp => family.ip_bytes(),
        };
        Self {
            mailbox,
            link,
            payload_bytes_max: mtu_bytes.saturating_sub(header_bytes),
            place,
        }
    }

    /// Sends a datagram; an echo request's id and checksum are filled in.
    pub(super) fn send(&self, payload: &[u8]) -> Result<(), Unsent> {
        let (bytes, max) = (payload.len(), self.payload_bytes_max);
        if bytes > max {
            return Err(Unsent::TooLong { bytes, max });
        }
        let conversation = self.place.conversation();
        let frame = match conversation.transport {
            Transport::Echo => frame::echo(conversation, &self.link, payload),
            Transport::Udp | Transport::Tcp => frame::udp(conversation, &self.link, payload),
        };
        self.place.wire().send(&frame).map_err(Unsent::Trouble)
    }

    /// The next answer.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        loop {
            // Before the look: what comes after it is not missed.
            let arrived = self.mailbox.arrived.notified();
            {
                let mut waiting = self.mailbox.waiting();
                if let Some(answer) = waiting.answers.pop_front() {
                    let length = answer.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&answer[..length]);
                    return Ok(length);
                }
                if let Some(trouble) = waiting.trouble.take() {
                    return Err(trouble);
                }
            }
            arrived.await;
        }
    }
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver for Mailbox {
    fn receive(&self, _packet: &[u8], payload: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.answers.len() < WAITING_MAX {
            let length = payload.len().min(ANSWER_BYTES_MAX);
            waiting.answers.push_back(payload[..length].to_vec());
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn fail(&self, trouble: Trouble) {
        self.waiting().trouble = Some(trouble);
        self.arrived.notify_one();
    }
}
