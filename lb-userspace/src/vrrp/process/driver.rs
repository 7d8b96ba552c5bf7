//! The loop: what has come in goes to the machines, then deadlines, then it waits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::{info, warn};

use super::advert_socket::PACKET_BYTES_MAX;
use super::claims::Ears;
use super::control::{Control, Wait};
use super::memory::{Memory, Record};
use super::outputs::Request;
use super::ports::Ports;
use super::properties::{self, Granted};
use super::run::Run;
use super::signals::Signals;
use super::status::Told;
use super::wait::wait;
use super::{VERSION, clock};
use crate::netlink::announce::PacketSocket;
use crate::netlink::blocking::{BlockingNetlink, NetworkWatch};
use crate::vrrp::packet::vrid_of;
use crate::vrrp::protocol::{Facts, Family, FromVrrp, Status};
use crate::vrrp::router::Input;

/// Packets taken from one socket in one round.
const PACKETS_PER_ROUND_MAX: usize = 256;
/// The same after the process was stopped: more than the socket's buffer holds, so that what came in meanwhile is known
/// before a deadline is looked at.
const PACKETS_AFTER_STOP_MAX: usize = 4096;
/// The pause after a round that has left packets: a flood gets some of the CPU, not all of it, although the process
/// has real-time priority (256 packets a millisecond). Unit: microseconds.
const FLOOD_PAUSE_US: u64 = 1_000;
/// Answers to probes taken from one socket in one round.
const ANSWERS_PER_ROUND_MAX: usize = 256;
/// What nobody tells is looked at so often. Unit: microseconds.
const TICK_US: u64 = 1_000_000;
/// The kernel's tables are read again so often at most, however often they change. Unit: microseconds.
const REFRESH_EVERY_US: u64 = 10_000;

/// The whole process.
pub(super) struct Driver {
    /// Dropped first: a successor waits for its end, and the packet socket takes the kernel its time.
    pub(super) control: Control,
    pub(super) netlink: BlockingNetlink,
    watch: NetworkWatch,
    /// For whole frames; without it, VIPs are still found by whoever asks for them.
    pub(super) packets: Option<PacketSocket>,
    /// Who else claims VIPs.
    pub(super) ears: Ears,
    pub(super) are_ears_stale: bool,
    pub(super) memory: Memory,
    pub(super) record: Record,
    pub(super) is_record_dirty: bool,
    pub(super) ports: Ports,
    pub(super) runs: Vec<Run>,
    pub(super) requests: Vec<Request>,
    /// Routers of the former process that had handed over on demand, and have not begun here yet.
    pub(super) yielding: BTreeSet<(String, Family)>,
    /// What `lbd` has said last, and when.
    pub(super) facts: Option<(Facts, u64)>,
    /// Why this node is behind, as the machines were told last.
    pub(super) told_behind: Option<Option<String>>,
    /// Why the datapath cannot serve, as far as we can see.
    pub(super) datapath_trouble: Option<String>,
    pub(super) is_status_dirty: bool,
    told: Told,
    pub(super) signals: Signals,
    granted: Granted,
    began_us: u64,
    tick_us: u64,
    refreshed_us: u64,
    is_refresh_due: bool,
    /// The last round has left packets.
    is_flooded: bool,
    /// Until when the hand-overs of the end are waited for.
    pub(super) stop_at_us: Option<u64>,
}

/// How the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    On,
    /// Everything is handed over: nothing is to be left.
    End,
    /// Everything is left to a successor.
    MakeWay,
}

/// A packet, on its way to its machine.
struct Arrived {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    payload: Vec<u8>,
}

impl Driver {
    /// Opens all that is needed, and goes on where a former process has ended.
    ///
    /// # Errors
    /// If the socket is in use, or the kernel gives no netlink socket.
    pub(super) fn open(socket: &Path, signals: Signals) -> anyhow::Result<Self> {
        let control = Control::bind(socket)?;
        let now_us = clock::monotonic_us();
        let mut driver = Self {
            netlink: BlockingNetlink::open().context("cannot open a netlink socket")?,
            watch: NetworkWatch::open().context("cannot watch the links")?,
            packets: PacketSocket::open()
                .inspect_err(|error| warn!("VIPs will not be announced: {error:#}"))
                .ok(),
            ears: Ears::default(),
            are_ears_stale: false,
            control,
            memory: Memory::open(socket),
            record: Record {
                boot: clock::boot_id(),
                ..Record::default()
            },
            is_record_dirty: false,
            ports: Ports::default(),
            runs: Vec::new(),
            requests: Vec::new(),
            yielding: BTreeSet::new(),
            facts: None,
            told_behind: None,
            datapath_trouble: None,
            is_status_dirty: true,
            told: Told::default(),
            signals,
            granted: properties::claim(),
            began_us: now_us,
            tick_us: now_us + TICK_US,
            refreshed_us: 0,
            is_refresh_due: false,
            is_flooded: false,
            stop_at_us: None,
        };
        driver.inherit(now_us)?;
        Ok(driver)
    }

    /// Runs until a signal or an order ends it.
    ///
    /// # Errors
    /// If the kernel does not let it wait.
    pub(super) fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            self.wait().context("cannot wait")?;
            // One moment for the whole round: a deadline that passes while packets are read is not due before
            // those that came until then are read, too.
            let now_us = clock::monotonic_us();
            match self.round(now_us) {
                Course::On => {}
                Course::MakeWay => {
                    self.save();
                    info!("making way for a successor");
                    return Ok(());
                }
                Course::End => {
                    self.leave_nothing();
                    return Ok(());
                }
            }
        }
    }

    fn wait(&self) -> std::io::Result<()> {
        if self.is_flooded {
            thread::sleep(Duration::from_micros(FLOOD_PAUSE_US));
        }
        let deadlines = self.runs.iter().filter_map(|run| run.machine.deadline());
        let refresh_us = self
            .is_refresh_due
            .then_some(self.refreshed_us + REFRESH_EVERY_US);
        let missing_us = self.runs.iter().filter_map(|run| run.missing.due_us());
        let missing_us = missing_us.map(|due_us| due_us.max(self.refreshed_us + REFRESH_EVERY_US));
        let waited_us = clock::monotonic_us();
        let until_us = deadlines
            .chain(refresh_us)
            .chain(missing_us)
            .chain(self.stop_at_us)
            .chain(self.ears.deadline_us(waited_us))
            .fold(self.tick_us, u64::min);
        let own = [self.watch.as_fd(), self.signals.as_fd()];
        let claims = self.ears.descriptors(self.packets.as_ref(), waited_us);
        let read = own
            .into_iter()
            .chain(self.ports.descriptors())
            .chain(claims);
        let all = read
            .map(|descriptor| (descriptor, Wait::Read))
            .chain(self.control.descriptors());
        wait(all, until_us.saturating_sub(clock::monotonic_us()))
    }

    fn round(&mut self, now_us: u64) -> Course {
        let packets_max = match self.tell_who_overslept(now_us) {
            true => PACKETS_AFTER_STOP_MAX,
            false => PACKETS_PER_ROUND_MAX,
        };
        self.take_packets(now_us, packets_max);
        self.take_answers(now_us);
        // After the advertisements: one that takes over has claimed the VIPs, too.
        self.take_claims(now_us);
        self.take_network_changes(now_us);
        let mut course = self.take_orders(now_us);
        self.fire_timers(now_us);
        if now_us >= self.tick_us {
            self.tick_us = now_us + TICK_US;
            self.tick(now_us);
        }
        self.runs.retain(|run| !(run.is_leaving && run.is_stopped));
        if self.are_ears_stale {
            self.tune_ears();
        }
        if self.is_record_dirty {
            self.save();
        }
        self.tell_status(now_us);
        if let (Course::On, Some(stop_at_us)) = (course, self.stop_at_us) {
            let is_done = self.runs.is_empty() || now_us >= stop_at_us;
            course = if is_done { Course::End } else { Course::On };
        }
        course
    }

    /// A process that was stopped, or got no CPU, knows less than it should: the machines are told before they
    /// hear what has come in meanwhile. Whether that was so.
    fn tell_who_overslept(&mut self, now_us: u64) -> bool {
        let mut is_late = false;
        for index in 0..self.runs.len() {
            let Some(run) = self.runs.get(index) else {
                continue;
            };
            let Some(deadline_us) = run.machine.deadline() else {
                continue;
            };
            let by_us = now_us.saturating_sub(deadline_us);
            if by_us > run.machine.config().interval_us() {
                warn!(
                    "{}: {} ms late: the process did not run",
                    run.name(),
                    by_us / 1000
                );
                self.feed(index, now_us, Input::Overslept { by_us });
                is_late = true;
            }
        }
        is_late
    }

    fn take_packets(&mut self, now_us: u64, packets_max: usize) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut arrived: Vec<(String, Family, Arrived)> = Vec::new();
        let mut is_flooded = false;
        for (interface, family, voice) in self.ports.voices() {
            for taken in 1..=packets_max {
                is_flooded |= taken == packets_max;
                match voice.adverts.receive(&mut buffer) {
                    Ok(None) => break,
                    // An error of the past, such as that the link went down: told once.
                    Err(_) => {}
                    Ok(Some(received)) => {
                        let packet = Arrived {
                            source: received.source,
                            destination: received.destination,
                            hop_limit: received.hop_limit,
                            payload: received.payload.to_vec(),
                        };
                        arrived.push((interface.to_owned(), family, packet));
                    }
                }
            }
        }
        self.is_flooded = is_flooded;
        for (interface, family, packet) in arrived {
            let index = self.runs.iter().position(|run| {
                run.family == family
                    && run.group.interface == interface
                    && vrid_of(&packet.payload) == Some(run.group.vrid)
            });
            // Those of other virtual routers are none of our business.
            let Some(index) = index else { continue };
            let input = Input::Received {
                source: packet.source,
                destination: packet.destination,
                hop_limit: packet.hop_limit,
                payload: &packet.payload,
            };
            self.feed(index, now_us, input);
        }
    }

    fn take_answers(&mut self, now_us: u64) {
        let mut answers = Vec::new();
        for (interface, family, voice) in self.ports.voices() {
            let Some(probe) = &voice.probe else { continue };
            for _ in 0..ANSWERS_PER_ROUND_MAX {
                match probe.answer() {
                    Ok(None) => break,
                    Err(_) => {}
                    Ok(Some(address)) => answers.push((interface.to_owned(), family, address)),
                }
            }
        }
        for (interface, family, address) in answers {
            for index in 0..self.runs.len() {
                let is_for = self
                    .runs
                    .get(index)
                    .is_some_and(|run| run.family == family && run.group.interface == interface);
                if is_for {
                    self.feed(index, now_us, Input::ProbeAnswered { address });
                }
            }
        }
    }

    fn take_network_changes(&mut self, now_us: u64) {
        self.is_refresh_due |= self.watch.take_change() || self.is_restoring_due(now_us);
        if self.is_refresh_due && now_us >= self.refreshed_us + REFRESH_EVERY_US {
            self.refresh(now_us);
        }
    }

    /// Reads the kernel's tables, and tells the machines what follows.
    pub(super) fn refresh(&mut self, now_us: u64) {
        self.is_refresh_due = false;
        self.refreshed_us = now_us;
        self.are_ears_stale = true;
        let wanted = self.wanted();
        let risen = self.ports.refresh(&mut self.netlink, &wanted);
        self.find_devices();
        self.look_at_datapath(now_us);
        self.take_sources(now_us);
        self.tell_conditions(now_us);
        for index in 0..self.runs.len() {
            let has_risen = self
                .runs
                .get(index)
                .is_some_and(|run| risen.contains(&run.group.interface));
            if has_risen {
                self.feed(index, now_us, Input::LinkUp);
            }
        }
        self.restore_vips(now_us);
    }

    fn fire_timers(&mut self, now_us: u64) {
        for index in 0..self.runs.len() {
            let deadline_us = self.runs.get(index).and_then(|run| run.machine.deadline());
            if deadline_us.is_some_and(|deadline_us| deadline_us <= now_us) {
                self.feed(index, now_us, Input::Timer);
            }
            self.clear_leftovers(index, now_us);
        }
    }

    /// What nobody tells: whether the datapath is still there, and whether what failed works now.
    fn tick(&mut self, now_us: u64) {
        self.tell_behind(now_us);
        self.look_at_datapath(now_us);
        let lacks_voice = |run: &Run| {
            let voice = self.ports.voice(&run.group.interface, run.family);
            voice.is_none() || run.machine.config().source.is_unspecified()
        };
        self.is_refresh_due |= self.runs.iter().any(lacks_voice);
        self.tell_conditions(now_us);
        // A disk that was full may not be any more.
        self.is_record_dirty |= self.memory.is_failing();
        self.is_status_dirty = true;
    }

    pub(super) fn status(&self, now_us: u64) -> Status {
        let unix_ms = clock::unix_ms();
        let routers = self.runs.iter().filter(|run| !run.is_leaving);
        Status {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            uptime_ms: now_us.saturating_sub(self.began_us) / 1000,
            is_realtime: self.granted.is_realtime,
            routers: routers
                .map(|run| {
                    let mut status = run.machine.status(now_us, unix_ms);
                    status.counters.vips_restored = run.missing.restored;
                    status
                })
                .collect(),
            taken_vips: self.taken_vips(),
            is_stopping: self.is_stopping(),
        }
    }

    /// What `lbd` has given and is on record here, or was.
    fn taken_vips(&self) -> Vec<IpAddr> {
        let given = self.record.configuration.given_vips.keys();
        given.copied().collect()
    }

    fn tell_status(&mut self, now_us: u64) {
        if !self.is_status_dirty && !self.told.is_due(now_us) {
            return;
        }
        self.is_status_dirty = false;
        let status = self.status(now_us);
        if self.told.is_news(now_us, &status) {
            self.control.tell_all(&FromVrrp::Status(status));
        }
    }
}
