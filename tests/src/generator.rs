//! The benchmark's wrapper programs: a fresh frame of a random flow for each run of the program under
//! test, and live frames for floods.

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use lb_common::bench::{FRAME_WORDS, SEND_STAMP_INTERVAL, SendLog, Settings};

use crate::datapath::frame::Frame;
use crate::datapath::kernel::{Plain, object_path};

/// The object with the wrapper programs, loaded.
#[derive(Debug)]
pub struct Generator {
    ebpf: Ebpf,
}

/// What frames are made of.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The frame of flow 0.
    pub frame: Frame,
    /// Flows, a power of two.
    pub flow_count: u32,
}

/// Frames that live frames are made in at once: as many as a driver's poll takes (`NAPI_POLL_WEIGHT`),
/// so that the receiving end's ring, four times as long, is drained in time.
const LIVE_BATCH: u32 = 64;

/// How flows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each once, one after the other.
    Sequential,
    /// At random.
    Random,
}

impl Generator {
    /// Loads the wrapper programs.
    pub fn load() -> Result<Self> {
        let path = object_path("lb-ebpf-bench");
        let object = std::fs::read(&path)
            .with_context(|| format!("{}: run `cargo xtask build` first", path.display()))?;
        let mut ebpf = Ebpf::load(&object)?;
        for (_, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            program.load()?;
        }
        Ok(Self { ebpf })
    }

    /// One of the wrapper programs.
    pub fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// A handle on a wrapper program as something to put under test.
    pub fn handle(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(self.program(name)?.fd()?.try_clone()?)
    }

    fn put_under_test(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("UNDER_TEST")
            .context("no map UNDER_TEST")?;
        let mut programs: ProgramArray<&mut MapData> = map.try_into()?;
        Ok(programs.set(0, program, 0)?)
    }

    fn put_settings(&mut self, traffic: &Traffic, order: Order, ifindex: u32) -> Result<()> {
        let mut bytes = traffic.frame.bytes();
        ensure!(
            bytes.len() <= FRAME_WORDS * 8,
            "a frame of {} bytes",
            bytes.len()
        );
        ensure!(
            traffic.flow_count.is_power_of_two(),
            "{} flows",
            traffic.flow_count
        );
        bytes.resize(FRAME_WORDS * 8, 0);
        let settings = Settings {
            template: bytemuck::pod_read_unaligned(&bytes),
            flow_count: traffic.flow_count,
            ifindex,
            is_ipv6: u32::from(traffic.frame.source.is_ipv6()),
            is_sequential: u32::from(order == Order::Sequential),
        };
        let map = self.ebpf.map_mut("SETTINGS").context("no map SETTINGS")?;
        let mut array: Array<&mut MapData, Plain<Settings>> = map.try_into()?;
        Ok(array.set(0, Plain(settings), 0)?)
    }

    /// Runs the program under test `count` times, each time on a fresh frame. Returns the last
    /// run's action.
    pub fn run(
        &mut self,
        program: &ProgramFd,
        traffic: &Traffic,
        order: Order,
        count: u32,
    ) -> Result<u32> {
        self.put_under_test(program)?;
        self.put_settings(traffic, order, 0)?;
        let frame = [0; FRAME_WORDS * 8];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: count,
            ..Default::default()
        };
        Ok(self.program("generate")?.test_run(options)?.return_value)
    }

    /// Sends `count` live frames of random flows out of the interface `ifindex` of the calling
    /// thread's network namespace. `count` is a multiple of [`SEND_STAMP_INTERVAL`].
    pub fn send(&mut self, traffic: &Traffic, ifindex: u32, count: u32) -> Result<SendLog> {
        ensure!(
            u64::from(count).is_multiple_of(SEND_STAMP_INTERVAL),
            "{count} frames: not a multiple of {SEND_STAMP_INTERVAL}, so their end would go unseen"
        );
        self.put_settings(traffic, Order::Random, ifindex)?;
        self.reset_sent()?;
        let frame = [0; FRAME_WORDS * 8];
        self.program("generate_and_send")?
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: count,
                attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
                ..Default::default()
            })
            .context("BPF_PROG_TEST_RUN with live frames was refused (it needs Linux 5.18)")?;
        self.sent()
    }

    /// Frames that `count_and_drop` has seen so far.
    pub fn seen_count(&mut self) -> Result<u64> {
        let map = self.ebpf.map_mut("SEEN").context("no map SEEN")?;
        let seen: PerCpuArray<&mut MapData, u64> = map.try_into()?;
        Ok(seen.get(&0, 0)?.iter().sum())
    }

    fn sent_log(&mut self) -> Result<PerCpuArray<&mut MapData, Plain<SendLog>>> {
        let map = self.ebpf.map_mut("SENT").context("no map SENT")?;
        Ok(map.try_into()?)
    }

    fn reset_sent(&mut self) -> Result<()> {
        let mut log = self.sent_log()?;
        let cpu_count = log.get(&0, 0)?.len();
        let empty = PerCpuValues::try_from(vec![Plain(SendLog::default()); cpu_count])?;
        Ok(log.set(0, empty, 0)?)
    }

    /// The log of the one CPU that has sent.
    fn sent(&mut self) -> Result<SendLog> {
        let logs = self.sent_log()?.get(&0, 0)?;
        let mut logs = logs.iter().filter(|log| log.0.frame_count > 0);
        let log = logs.next().context("no frame was sent")?.0;
        ensure!(
            logs.next().is_none(),
            "frames were sent from more than one CPU"
        );
        Ok(log)
    }
}
