//! A connection of our own as a stream.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use lb_common::abi::LinkRewrite;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Connection, Progress, Step};
use super::frame::{self, Family, Undelivered};
use super::link::{Place, Receiver, Trouble, Wire};

/// A connection is not advanced more often than this without a packet: whatever its state machine says, it
/// must not keep the thread busy.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// A connection over a wire. Dropping it resets the connection.
pub(in crate::health::probe) struct WireStream {
    end: Arc<End>,
    timer: Pin<Box<Sleep>>,
    /// Last: what still comes after the RST is for nobody.
    _place: Place,
}

/// Our end: shared with the task that takes what comes.
struct End(Mutex<State>);

struct State {
    connection: Connection,
    wire: Arc<Wire>,
    link: LinkRewrite,
    family: Family,
    trouble: Option<Trouble>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Who waits.
#[derive(Clone, Copy)]
enum Side {
    Reader,
    Writer,
}

impl WireStream {
    /// A stream over a connection at a place. Nothing is sent before it is polled.
    pub(super) fn new(place: Place, link: LinkRewrite, connection: Connection) -> Self {
        let end = Arc::new(End(Mutex::new(State {
            connection,
            wire: Arc::clone(place.wire()),
            link,
            family: Family::of(place.conversation().local.ip()),
            trouble: None,
            reader: None,
            writer: None,
        })));
        place.listen(Arc::clone(&end) as Arc<dyn Receiver>);
        Self {
            end,
            timer: Box::pin(sleep_until(Instant::now())),
            _place: place,
        }
    }

    /// Waits for the handshake.
    pub(super) async fn connected(&mut self) -> Result<(), Refusal> {
        self.end.state().advance(None);
        std::future::poll_fn(|context| {
            self.poll(context, Side::Writer, |state| {
                if let Some(trouble) = state.trouble {
                    return Poll::Ready(Err(Refusal::Trouble(trouble)));
                }
                match state.connection.progress() {
                    Progress::Opening => Poll::Pending,
                    Progress::Open => Poll::Ready(Ok(())),
                    Progress::Refused => Poll::Ready(Err(Refusal::Refused)),
                    Progress::Reset => Poll::Ready(Err(Refusal::Reset)),
                }
            })
        })
        .await
    }

    /// Tries a step until it is done, and advances the connection when its time has come.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        side: Side,
        mut step: impl FnMut(&mut State) -> Poll<T>,
    ) -> Poll<T> {
        loop {
            let deadline = {
                let mut state = self.end.state();
                if let Poll::Ready(done) = step(&mut state) {
                    return Poll::Ready(done);
                }
                state.wait(side, context.waker());
                let now = Instant::now();
                let deadline = state.connection.deadline(now.into_std());
                deadline.map(|deadline| Instant::from_std(deadline).max(now + PAUSE_MIN))
            };
            let Some(deadline) = deadline else {
                return Poll::Pending;
            };
            self.timer.as_mut().reset(deadline);
            ready!(self.timer.as_mut().poll(context));
            self.end.state().advance(None);
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A RST to the SYN.
    Refused,
    /// A RST right after the handshake.
    Reset,
    /// It cannot go on.
    Trouble(Trouble),
}

impl Drop for WireStream {
    fn drop(&mut self) {
        let mut state = self.end.state();
        state.connection.abort();
        state.advance(None);
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll(context, Side::Reader, |state| {
            match state.connection.read(buffer.initialize_unfilled()) {
                Step::Done(count) => {
                    buffer.advance(count);
                    // The server may go on if its window was closed.
                    state.advance(None);
                    Poll::Ready(Ok(()))
                }
                Step::End => Poll::Ready(Ok(())),
                Step::Wait => state.pending(),
                Step::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        })
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll(context, Side::Writer, |state| {
            match state.connection.write(bytes) {
                Step::Done(count) => {
                    state.advance(None);
                    Poll::Ready(Ok(count))
                }
                Step::Wait => state.pending(),
                Step::End | Step::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        })
    }

    /// What was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// None: see [`super::super::connect::stream`].
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held would be a fault of this connection alone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a packet, does what is due, and sends what follows.
    fn advance(&mut self, packet: Option<&[u8]>) {
        let now = Instant::now().into_std();
        for mut frame in self.connection.advance(now, packet) {
            frame::write_link(&mut frame, &self.link, self.family);
            if let Err(trouble) = self.wire.send(&frame) {
                self.trouble = Some(trouble);
            }
        }
    }

    fn wait(&mut self, side: Side, waker: &Waker) {
        let slot = match side {
            Side::Reader => &mut self.reader,
            Side::Writer => &mut self.writer,
        };
        match slot {
            Some(known) if known.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    /// Not yet; or never, with what has happened. What an established connection hears of ICMP is no end
    /// of it (RFC 1122 section 4.2.3.9).
    fn pending<T>(&self) -> Poll<io::Result<T>> {
        match self.trouble {
            Some(Trouble::LinkDown) => Poll::Ready(Err(io::ErrorKind::NetworkUnreachable.into())),
            Some(Trouble::Undelivered(
                Undelivered::Port
                | Undelivered::Prohibited
                | Undelivered::Address
                | Undelivered::HopLimit,
            ))
            | None => Poll::Pending,
        }
    }
}

impl Receiver for End {
    fn receive(&self, packet: &[u8], _payload: &[u8]) {
        let mut state = self.state();
        state.advance(Some(packet));
        state.wake();
    }

    fn fail(&self, trouble: Trouble) {
        let mut state = self.state();
        state.trouble = Some(trouble);
        state.wake();
    }
}
