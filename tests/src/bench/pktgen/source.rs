//! Where frames come from: the kernel's pktgen where it has one, else live frames.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kernel_pktgen;
use super::wire::Wire;
use crate::generator::{Generator, Traffic};

/// A packet generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `/proc/net/pktgen`.
    KernelPktgen,
    /// `BPF_PROG_TEST_RUN` of a program that writes a frame and redirects it into the wire.
    LiveFrames,
}

/// Which generator a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wish {
    /// The kernel's pktgen where it has one, else live frames
    Auto,
    /// The kernel's pktgen; it sends UDP only
    Kernel,
    /// Live frames of BPF_PROG_TEST_RUN
    Live,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Frames put to the sender's end, taken or not.
    pub(crate) frame_count: u64,
    /// From the first of them to the last.
    pub(crate) elapsed: Duration,
}

impl Source {
    /// The generator for this kernel.
    pub(crate) fn choose(wish: Wish) -> Result<Self> {
        match wish {
            Wish::Live => Ok(Self::LiveFrames),
            Wish::Auto if !kernel_pktgen::is_present() => Ok(Self::LiveFrames),
            Wish::Auto => Ok(Self::KernelPktgen),
            Wish::Kernel => {
                ensure!(
                    kernel_pktgen::is_present(),
                    "this kernel has no /proc/net/pktgen: `modprobe pktgen` brings it where it is a \
                     module; `--generator live` does without"
                );
                Ok(Self::KernelPktgen)
            }
        }
    }

    /// For people, with the reason.
    pub(crate) fn label(self, wish: Wish) -> &'static str {
        match (self, wish) {
            (Self::KernelPktgen, _) => "the kernel's pktgen (UDP)",
            (Self::LiveFrames, Wish::Auto) => {
                "live frames of BPF_PROG_TEST_RUN, as this kernel has no /proc/net/pktgen"
            }
            (Self::LiveFrames, _) => "live frames of BPF_PROG_TEST_RUN",
        }
    }

    /// The flows that it makes of `traffic`.
    pub(crate) fn flow_count(self, traffic: &Traffic) -> u32 {
        match self {
            Self::KernelPktgen => kernel_pktgen::flow_count(traffic),
            Self::LiveFrames => traffic.flow_count,
        }
    }

    /// Sends `frame_count` frames into the wire. They are sent, balanced and answered on one CPU, the
    /// one that the calling thread is pinned to: so the figure is what all of it costs together, and
    /// no end runs ahead of the other.
    pub(crate) fn send(
        self,
        wire: &Wire,
        generator: &mut Generator,
        cpu: usize,
        traffic: &Traffic,
        frame_count: u32,
    ) -> Result<Sent> {
        match self {
            Self::KernelPktgen => kernel_pktgen::send(&wire.sender, cpu, traffic, frame_count),
            Self::LiveFrames => send_live(wire, generator, traffic, frame_count),
        }
    }
}

fn send_live(
    wire: &Wire,
    generator: &mut Generator,
    traffic: &Traffic,
    frame_count: u32,
) -> Result<Sent> {
    let ifindex = wire.sender_ifindex()?;
    let log = wire
        .sender
        .run(|| generator.send(traffic, ifindex, frame_count))??;
    let elapsed_ns = log.last_ns.checked_sub(log.first_ns);
    Ok(Sent {
        frame_count: log.frame_count,
        elapsed: Duration::from_nanos(elapsed_ns.context("the last frame was not stamped")?),
    })
}
