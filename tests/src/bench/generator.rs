//! The wrapper programs: a fresh frame of a random flow for each run of the program under test.

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use lb_common::bench::{FRAME_WORDS, Settings};
use lb_lab::datapath::frame::Frame;
use lb_lab::datapath::kernel::{Plain, object_path};

/// The object with the wrapper programs, loaded.
pub(crate) struct Generator {
    ebpf: Ebpf,
}

/// What frames are made of.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// The frame of flow 0.
    pub(crate) frame: Frame,
    /// Flows, a power of two.
    pub(crate) flow_count: u32,
}

/// How flows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each once, one after the other.
    Sequential,
    /// At random.
    Random,
}

impl Generator {
    /// Loads the wrapper programs.
    pub(crate) fn load() -> Result<Self> {
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
    pub(crate) fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// A handle on a wrapper program as something to put under test.
    pub(crate) fn handle(&mut self, name: &str) -> Result<ProgramFd> {
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

    fn put_settings(&mut self, traffic: &Traffic, order: Order) -> Result<()> {
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
            ifindex: 0,
            is_ipv6: u32::from(traffic.frame.source.is_ipv6()),
            is_sequential: u32::from(order == Order::Sequential),
        };
        let map = self.ebpf.map_mut("SETTINGS").context("no map SETTINGS")?;
        let mut array: Array<&mut MapData, Plain<Settings>> = map.try_into()?;
        Ok(array.set(0, Plain(settings), 0)?)
    }

    /// Runs the program under test `count` times, each time on a fresh frame. Returns the last
    /// run's action.
    pub(crate) fn run(
        &mut self,
        program: &ProgramFd,
        traffic: &Traffic,
        order: Order,
        count: u32,
    ) -> Result<u32> {
        self.put_under_test(program)?;
        self.put_settings(traffic, order)?;
        let frame = [0; FRAME_WORDS * 8];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: count,
            ..Default::default()
        };
        Ok(self.program("generate")?.test_run(options)?.return_value)
    }
}
