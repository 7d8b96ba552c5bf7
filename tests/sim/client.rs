//! Clients. Each has a place of its own, a pair of address and ports, and opens one connection
//! after the other from there.

use crate::history::Load;
use crate::packet::{Kind, Source};
use crate::rng::Rng;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Some segments, an orderly end, another port for the next connection.
    Web,
    /// The same, from the same port, at once.
    Reuser,
    /// The same, from the same port, after minutes.
    Returner,
    /// One connection for as long as things happen.
    Long,
    /// The same, with a segment just before the idle time-out is over.
    Slow,
    /// Says early that it has no more to send, and receives for long.
    Download,
    /// Ends with a RST, from the same port again.
    Aborter,
}

const CALM: [Habit; 9] = [
    Habit::Web,
    Habit::Web,
    Habit::Web,
    Habit::Reuser,
    Habit::Returner,
    Habit::Long,
    Habit::Slow,
    Habit::Download,
    Habit::Aborter,
];

impl Habit {
    fn draw(rng: &mut Rng, load: Load) -> Self {
        let usual = rng.pick(&CALM);
        let is_special = rng.happens(700);
        match load {
            Load::SlowFlows if is_special => Self::Slow,
            Load::HalfClosed if is_special => Self::Download,
            Load::PortReuse if is_special => {
                rng.pick(&[Self::Reuser, Self::Returner, Self::Aborter])
            }
            _ => usual,
        }
    }
}

/// Where a connection is, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none.
    Idle,
    /// SYNs were sent, this many again.
    Opening(u32),
    /// In use.
    Open,
    /// The client has sent its FIN, and receives on.
    HalfClosed,
    /// The FIN is on its way; the last acknowledgement follows.
    Closing,
}

/// A client and its connection of the moment.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) rng: Rng,
    pub(crate) habit: Habit,
    pub(crate) phase: Phase,
    /// The number of the connection.
    pub(crate) incarnation: u32,
    /// The initial sequence number.
    pub(crate) initial: u32,
    /// How far the sequence number has come.
    pub(crate) sent: u32,
    /// Segments yet to be sent before the end.
    pub(crate) left: u32,
    /// The backend that the client took the SYN-ACK of.
    pub(crate) owner: Option<usize>,
    /// A late copy of the SYN went to another backend than the owner.
    pub(crate) is_split: bool,
    /// Backends that got a SYN of the connection after they had been down for long, as far as the
    /// balancers knew: bits.
    pub(crate) risky: u32,
    /// The owner has had a segment of the established connection.
    pub(crate) is_confirmed: bool,
    /// Which of the timers that were set still counts.
    pub(crate) timer: u32,
    /// The node that the client's packets arrive at.
    pub(crate) node: usize,
}

/// What a client sends, and when it wants to be asked again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) sends: Option<Kind>,
    pub(crate) wake_ms: u64,
}

/// What a client knows of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    pub(crate) idle_timeout_ms: u64,
    /// No new connections, and the old ones end.
    pub(crate) is_over: bool,
}

/// Between two segments, usually. Unit: milliseconds.
const GAP_MS: u64 = 2_000;
/// Longer than anything.
pub(crate) const NEVER_MS: u64 = u64::MAX / 2;
/// SYNs sent again before the client gives up (Linux's default).
const SYN_RETRIES: u32 = 6;

impl Client {
    pub(crate) fn new(mut rng: Rng, load: Load, node: usize) -> Self {
        let habit = Habit::draw(&mut rng, load);
        Self {
            rng,
            habit,
            phase: Phase::Idle,
            incarnation: 0,
            initial: 0,
            sent: 0,
            left: 0,
            owner: None,
            is_split: false,
            risky: 0,
            is_confirmed: false,
            timer: 0,
            node,
        }
    }

    /// Where the connection comes from, for the client at this position.
    pub(crate) fn source(&self, position: usize) -> Source {
        let varies = !matches!(self.habit, Habit::Reuser | Habit::Returner | Habit::Aborter);
        let step = if varies { self.incarnation % 50_000 } else { 0 };
        Source {
            address: 0x0a00_0001 + position as u32,
            port: 10_000 + step as u16,
        }
    }

    /// The sequence number of the next segment.
    pub(crate) fn sequence(&self) -> u32 {
        self.initial.wrapping_add(self.sent)
    }

    /// Whether the connection is established, and meant to live on.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::HalfClosed) && self.owner.is_some()
    }

    /// Whether it is promised that the connection is kept.
    pub(crate) fn is_promised(&self) -> bool {
        let is_risky = self.owner.is_some_and(|owner| self.risky >> owner & 1 != 0);
        self.is_confirmed && !self.is_split && !is_risky
    }

    /// The client's timer has fired.
    pub(crate) fn turn(&mut self, manners: Manners) -> Turn {
        match self.phase {
            Phase::Idle if manners.is_over => self.rest(NEVER_MS),
            Phase::Idle => self.open(),
            Phase::Opening(tries) if tries >= SYN_RETRIES => {
                self.phase = Phase::Idle;
                self.rest(1_000)
            }
            Phase::Opening(tries) => {
                self.phase = Phase::Opening(tries + 1);
                Turn {
                    sends: Some(Kind::Syn),
                    wake_ms: 2_000 << tries,
                }
            }
            Phase::Open if self.left == 0 || manners.is_over => self.finish(),
            Phase::Open => {
                self.left -= 1;
                self.sent = self.sent.wrapping_add(1_000);
                self.go_on(Kind::Segment, manners)
            }
            Phase::HalfClosed if self.left == 0 || manners.is_over => self.last_segment(),
            Phase::HalfClosed => {
                self.left -= 1;
                self.go_on(Kind::Segment, manners)
            }
            Phase::Closing => self.last_segment(),
        }
    }

    fn rest(&self, wake_ms: u64) -> Turn {
        Turn {
            sends: None,
            wake_ms,
        }
    }

    fn open(&mut self) -> Turn {
        self.incarnation += 1;
        self.phase = Phase::Opening(0);
        self.initial = self.rng.next() as u32;
        self.sent = 0;
        self.owner = None;
        self.is_split = false;
        self.risky = 0;
        self.is_confirmed = false;
        self.left = match self.habit {
            Habit::Web | Habit::Reuser | Habit::Returner | Habit::Aborter => {
                self.rng.within(1, 20) as u32
            }
            Habit::Download => self.rng.within(1, 3) as u32,
            Habit::Long | Habit::Slow => u32::MAX,
        };
        Turn {
            sends: Some(Kind::Syn),
            wake_ms: 1_000,
        }
    }

    /// The SYN-ACK of a backend has arrived.
    pub(crate) fn take_syn_ack(&mut self, backend: usize, manners: Manners) -> Option<Turn> {
        if !matches!(self.phase, Phase::Opening(_)) {
            return None;
        }
        self.phase = Phase::Open;
        self.owner = Some(backend);
        self.sent = 1;
        Some(self.go_on(Kind::Segment, manners))
    }

    fn go_on(&mut self, kind: Kind, manners: Manners) -> Turn {
        let wake_ms = match self.habit {
            Habit::Slow => {
                let share = self.rng.within(55, 70);
                manners.idle_timeout_ms * share / 100
            }
            _ => {
                self.rng
                    .exponential(GAP_MS)
                    .min(manners.idle_timeout_ms / 2)
                    + 1
            }
        };
        Turn {
            sends: Some(kind),
            wake_ms,
        }
    }

    fn finish(&mut self) -> Turn {
        if self.habit == Habit::Aborter {
            self.phase = Phase::Idle;
            let wake_ms = self.pause();
            return Turn {
                sends: Some(Kind::Rst),
                wake_ms,
            };
        }
        if self.habit == Habit::Download {
            self.phase = Phase::HalfClosed;
            self.left = self.rng.within(20, 100) as u32;
        } else {
            self.phase = Phase::Closing;
        }
        self.sent = self.sent.wrapping_add(1);
        Turn {
            sends: Some(Kind::Fin),
            wake_ms: self.rng.within(2, 300),
        }
    }

    fn last_segment(&mut self) -> Turn {
        self.phase = Phase::Idle;
        let wake_ms = self.pause();
        Turn {
            sends: Some(Kind::Segment),
            wake_ms,
        }
    }

    fn pause(&mut self) -> u64 {
        match self.habit {
            Habit::Reuser | Habit::Aborter => self.rng.within(1, 500),
            Habit::Returner => self.rng.within(10_000, 200_000),
            _ => self.rng.exponential(GAP_MS) + 1,
        }
    }
}
