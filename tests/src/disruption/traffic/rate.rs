//! Flows at a constant rate, over UDP and TCP: what is lost shows as a gap in the sequence, and how
//! long it takes until answers come again as a gap in time.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::breakage::Breakage;
use super::flow::{ANSWER_TIMEOUT, Identity, next_round, open};
use super::ledger::Stream;
use super::records::{RecordReader, check_backend};
use super::world::{World, connect};
use crate::disruption::record::{Kind, RECORD_LEN, Record, now_ns};
use crate::disruption::server::make_room;

/// Time between two records of a flow.
pub(super) const SEND_INTERVAL: Duration = Duration::from_millis(20);
/// The first datagram of a flow is repeated so often: one that is lost is no fault of an event.
const OPEN_ATTEMPTS: u32 = 5;
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Carries records there and back, in whatever order.
pub(super) trait Channel {
    /// Sends a record.
    async fn send(&mut self, record: &Record) -> Result<(), Breakage>;
    /// The next answer. May be given up at any time without loss.
    async fn receive(&mut self) -> Result<Record, Breakage>;
}

/// A UDP socket of one service.
pub(super) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Opens a socket and exchanges a first datagram. Returns the backend with it.
    pub(super) async fn open(address: SocketAddr, who: Identity) -> Result<(Self, u8), Breakage> {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        make_room(&socket).map_err(|error| Breakage::Socket(format!("{error:#}")))?;
        socket.connect(address).await?;
        let mut datagrams = Self { socket };
        for _ in 0..OPEN_ATTEMPTS {
            datagrams.send(&record(who, 0, 0)).await?;
            if let Ok(answer) = timeout(OPEN_TIMEOUT, datagrams.receive()).await {
                return Ok((datagrams, answer?.server));
            }
        }
        Err(Breakage::TimedOut)
    }
}

impl Channel for Datagrams {
    async fn send(&mut self, record: &Record) -> Result<(), Breakage> {
        self.socket.send(&record.bytes()).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Record, Breakage> {
        let mut bytes = [0; RECORD_LEN + 1];
        let length = self.socket.recv(&mut bytes).await?;
        let record = Record::parse(&bytes[..length]);
        record.ok_or_else(|| Breakage::WrongData(format!("{:02x?}", &bytes[..length])))
    }
}

/// A TCP connection whose records do not wait for each other.
pub(super) struct Records {
    stream: TcpStream,
    reader: RecordReader,
}

impl Records {
    /// Connects and exchanges a first record. Returns the backend with it.
    pub(super) async fn open(address: SocketAddr, who: Identity) -> Result<(Self, u8), Breakage> {
        let mut records = Self {
            stream: connect(address).await?,
            reader: RecordReader::default(),
        };
        records.send(&record(who, 0, 0)).await?;
        let answer = timeout(ANSWER_TIMEOUT, records.receive()).await??;
        Ok((records, answer.server))
    }
}

impl Channel for Records {
    async fn send(&mut self, record: &Record) -> Result<(), Breakage> {
        self.stream.write_all(&record.bytes()).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Record, Breakage> {
        self.reader.next(&mut self.stream).await
    }
}

fn record(who: Identity, sequence: u64, epoch: u64) -> Record {
    Record {
        kind: Kind::Echo,
        server: 0,
        flow: who.id,
        sequence,
        epoch,
        sent_ns: now_ns(),
    }
}

/// What is sent and not answered yet.
struct Rate<'a> {
    who: Identity,
    world: &'a World,
    backend: u8,
    sequence: u64,
    unanswered: BTreeSet<u64>,
    /// When the last answer came.
    heard: Instant,
}

/// Opens a flow and sends at the constant rate until it breaks. What broke it goes into the ledger.
pub(super) async fn use_channel<C: Channel>(
    who: Identity,
    opening: impl Future<Output = Result<(C, u8), Breakage>>,
    world: &World,
) {
    let mut rounds = world.rounds();
    let Some((mut channel, backend)) = open(who, opening, |opened| opened.1, world).await else {
        return;
    };
    let mut rate = Rate {
        who,
        world,
        backend,
        sequence: 0,
        unanswered: BTreeSet::new(),
        heard: Instant::now(),
    };
    let breakage = rate.run(&mut channel, &mut rounds).await;
    world.ledger.broke(who.id, breakage);
}

impl Rate<'_> {
    async fn run(
        &mut self,
        channel: &mut impl Channel,
        rounds: &mut watch::Receiver<u64>,
    ) -> Breakage {
        let mut ticks = interval(SEND_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A round, and when it began.
        let mut to_prove: Option<(u64, u64)> = None;
        loop {
            let done = tokio::select! {
                _ = ticks.tick() => self.send(channel).await,
                answer = channel.receive() => match answer.and_then(|answer| self.take(&answer)) {
                    Ok(sent_ns) => {
                        if let Some((round, _)) = to_prove.take_if(|(_, began)| sent_ns > *began) {
                            self.world.ledger.proved(self.who.id, round);
                        }
                        Ok(())
                    }
                    Err(breakage) => Err(breakage),
                },
                round = next_round(rounds) => {
                    to_prove = Some((round, now_ns()));
                    Ok(())
                }
            };
            if let Err(breakage) = done {
                return breakage;
            }
            if self.heard.elapsed() > ANSWER_TIMEOUT {
                return Breakage::TimedOut;
            }
        }
    }

    async fn send(&mut self, channel: &mut impl Channel) -> Result<(), Breakage> {
        self.sequence += 1;
        let epoch = self.world.ledger.epoch();
        self.unanswered.insert(self.sequence);
        self.note(epoch, |stream| stream.sent += 1);
        let record = record(self.who, self.sequence, epoch);
        // A connection that takes nothing more is silent as well.
        timeout(ANSWER_TIMEOUT, channel.send(&record)).await?
    }

    /// Takes an answer in; returns when its question was sent.
    fn take(&mut self, answer: &Record) -> Result<u64, Breakage> {
        if (answer.kind, answer.flow) != (Kind::Echo, self.who.id) {
            return Err(Breakage::WrongData(format!("{answer:?}")));
        }
        check_backend(self.backend, answer.server)?;
        let now = Instant::now();
        let gap = now.duration_since(self.heard).saturating_sub(SEND_INTERVAL);
        self.heard = now;
        self.world
            .ledger
            .note_wait(self.who.lane, self.backend, gap);
        if self.unanswered.remove(&answer.sequence) {
            self.note(answer.epoch, |stream| stream.answered += 1);
        }
        Ok(answer.sent_ns)
    }

    fn note(&self, epoch: u64, change: impl FnOnce(&mut Stream)) {
        let (who, backend) = (self.who, self.backend);
        self.world.ledger.note(epoch, who.lane, |counts| {
            let stream = counts.streams.entry(who.id).or_default();
            stream.backend = backend;
            change(stream);
        });
    }
}
