//! A SYN flood: spoofed SYNs, each of a flow of its own, straight into the balancer's interface.
//!
//! Live frames of `BPF_PROG_TEST_RUN` go from the switch's port into the balancer, who steers them to
//! backends like any others; on the way back through the same port they are dropped ([`sink`]).

mod sink;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::lane::{Carries, Family, Lane};
use crate::datapath::frame::{Flags, Frame, Transport};
use crate::generator::{Generator, Traffic};
use crate::netns::Netns;
use crate::observe;
use crate::topology::Topology;
use crate::{cpu, xdp_pass};

/// The switch's port that faces the balancer, and the balancer's interface.
const SWITCH_PORT: &str = "lb";
const BALANCER_INTERFACE: &str = "eth0";

/// Frames that are sent at once: a multiple of the generator's stamp interval. A lane gets a batch,
/// then the next one.
const BATCH_FRAMES: u32 = 32 << 10;
/// Flows: 65,536 addresses with 1,024 ports each, as many as the sink's prefix holds.
const FLOW_COUNT: u32 = 1 << 26;
/// The CPU that the flood is sent and balanced on.
const CPU: usize = 1;
/// Last number of the spoofed sources' port, before the generator puts its own in.
const SOURCE_PORT: u16 = 1024;

/// What a flood was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloodReport {
    /// Frames sent.
    pub sent: u64,
    /// Frames that the balancer's interface took in meanwhile, other traffic included.
    pub received: u64,
    /// How long it lasted.
    pub elapsed: Duration,
}

impl fmt::Display for FloodReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed_s = self.elapsed.as_secs_f64();
        let per_s = |count: u64| count as f64 / elapsed_s / 1e6;
        let (sent, received) = (per_s(self.sent), per_s(self.received));
        write!(
            f,
            "a flood of {sent:.2} million SYNs a second for {elapsed_s:.0} s, of which {received:.2} \
             million (other traffic included) found room in the balancer's interface"
        )
    }
}

/// A flood under way. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
    received_before: u64,
    began: Instant,
}

impl Flood {
    /// Starts a flood of `rate_pps` frames a second on the TCP services of every lane.
    pub fn start(net: &Topology, rate_pps: u32) -> Result<Self> {
        sink::attach(net.switch(), SWITCH_PORT)?;
        let mac = observe::link_address(&net.lb, BALANCER_INTERFACE)?;
        let frames = Lane::ALL.map(|lane| Traffic {
            frame: spoofed_syn(lane, mac),
            flow_count: FLOW_COUNT,
        });
        let mut generator = Generator::load()?;
        let ifindex = net.switch().interface_index(SWITCH_PORT)?;
        let entry = net.switch().entry();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let received_before = received(&net.lb)?;
        let thread = thread::spawn(move || {
            entry.run(|| send(&mut generator, &frames, ifindex, rate_pps, &over))?
        });
        Ok(Self {
            is_over,
            thread: Some(thread),
            received_before,
            began: Instant::now(),
        })
    }

    /// Ends the flood.
    pub fn stop(mut self, net: &Topology) -> Result<FloodReport> {
        let sent = self.end()?.context("the flood has ended before")?;
        let elapsed = self.began.elapsed();
        let received = received(&net.lb)? - self.received_before;
        xdp_pass::attach(net.switch(), SWITCH_PORT)?;
        Ok(FloodReport {
            sent,
            received,
            elapsed,
        })
    }

    fn end(&mut self) -> Result<Option<u64>> {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent.map(Some).context("the flood"),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(None),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Sends batches, at the rate, until it is over. Returns the frames sent.
fn send(
    generator: &mut Generator,
    frames: &[Traffic],
    ifindex: u32,
    rate_pps: u32,
    is_over: &AtomicBool,
) -> Result<u64> {
    cpu::pin(CPU)?;
    cpu::be_nice()?;
    let began = Instant::now();
    let mut sent = 0;
    for traffic in frames.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        sent += generator.send(traffic, ifindex, BATCH_FRAMES)?.frame_count;
        let due = Duration::from_secs_f64(sent as f64 / f64::from(rate_pps));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(sent)
}

fn spoofed_syn(lane: Lane, to_mac: [u8; 6]) -> Frame {
    let source: IpAddr = match lane.family {
        Family::V4 => sink::SOURCE_V4.into(),
        Family::V6 => sink::SOURCE_V6.into(),
    };
    let to = lane.address(Carries::Records);
    let syn = Transport::Tcp(Flags::Syn);
    Frame {
        to_mac,
        payload: Vec::new(),
        ..Frame::new(source, SOURCE_PORT, to.ip(), to.port(), syn)
    }
}

/// Packets that the balancer's interface has taken in.
fn received(lb: &Netns) -> Result<u64> {
    let links = lb.ip_json(&["-statistics", "link", "show", "dev", BALANCER_INTERFACE])?;
    links[0]["stats64"]["rx"]["packets"]
        .as_u64()
        .with_context(|| format!("no counters of {BALANCER_INTERFACE}: {links}"))
}
