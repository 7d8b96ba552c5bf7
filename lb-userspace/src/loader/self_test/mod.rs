//! Whether the program does on this kernel what it should, before it may take over.
//!
//! The object is loaded once more, with small maps of its own, the hash key of the datapath that it is
//! to replace, and test services at addresses of the documentation and discard ranges. So nothing that
//! packets use is touched, nothing has to be cleaned up, and a kill in the middle leaves nothing.

mod frame;
mod services;

use std::fmt;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_common::abi::LinkRewrite;
use lb_common::drop_reason::DropReason;
use tracing::debug;

use self::frame::Segment;
use super::LoadError;
use super::object::{self, Globals, Maps, Opened};
use crate::maps::MapStore;
use crate::model::Limits;

/// Set to anything, the self-test expects what is wrong: for tests of what happens then.
const FAULT_VARIABLE: &str = "LBD_SELF_TEST_FAULT";

/// Room for the test services.
const LIMITS: Limits = Limits {
    services: 8,
    backends: 8,
    ring_blocks: 8,
    flows: 1_024,
};

/// `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Bytes that the program may add to a frame, as far as the kernel is concerned.
const HEADROOM: usize = 256;

/// The program failed its test.
#[derive(Debug, thiserror::Error)]
#[error(
    "this build's program fails its self-test, and is not put in force: {step}: expected {expected}, \
     and saw {seen}. What was in force before still is"
)]
pub struct SelfTestError {
    step: &'static str,
    expected: String,
    seen: String,
}

/// A packet, and what must become of it.
struct Step {
    name: &'static str,
    packet: Segment,
    outcome: Outcome,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// It is sent out with these Ethernet addresses.
    Sent(LinkRewrite, Segment),
    /// It goes to the host as it came.
    Passed,
    /// It is dropped, and counted for this service.
    Dropped(u16, DropReason),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(link, segment) => {
                let [a, b, c, d, e, last] = link.destination();
                let (to, from) = (segment.destination, segment.source);
                write!(
                    f,
                    "a packet from {} port {} to {} port {} by way of \
                     {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}",
                    from.0, from.1, to.0, to.1
                )
            }
            Self::Passed => f.write_str("a packet for the host, unchanged"),
            Self::Dropped(_, reason) => write!(f, "a drop for the reason {}", reason.label()),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`LoadError::SelfTest`] tells what the test saw.
pub(super) fn run(globals: &Globals<'_>) -> Result<(), LoadError> {
    let limited = Globals {
        limits: &LIMITS,
        ..*globals
    };
    let opened = object::open(&limited, Maps::Private)?;
    let Opened {
        mut datapath,
        mut store,
        events: _events,
    } = opened;
    let wrong =
        |error: anyhow::Error| LoadError::Refused(error.context("the self-test cannot be run"));
    for write in services::writes() {
        store.write(&write).map_err(|error| wrong(error.into()))?;
    }
    let program = object::xdp(&mut datapath.ebpf).map_err(wrong)?;
    let steps = services::steps(std::env::var_os(FAULT_VARIABLE).is_some().into());
    for step in &steps {
        let seen = outcome(program, &store, step).map_err(wrong)?;
        if seen != step.outcome {
            return Err(LoadError::SelfTest(SelfTestError {
                step: step.name,
                expected: step.outcome.to_string(),
                seen: seen.to_string(),
            }));
        }
    }
    debug!(steps = steps.len(), "the program has passed its self-test");
    Ok(())
}

fn outcome(program: &Xdp, store: &impl MapStore, step: &Step) -> anyhow::Result<Outcome> {
    let frame = step.packet.frame();
    let before = expected_drops(store, step)?;
    let mut output = vec![0; frame.len() + HEADROOM];
    let result = program.test_run(TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut output),
        ..TestRunOptions::default()
    })?;
    output.truncate(result.data_size_out as usize);
    let counted = expected_drops(store, step)? - before;
    Ok(match result.return_value {
        XDP_TX => sent(&output),
        XDP_PASS if output == frame => Outcome::Passed,
        XDP_DROP if counted == 1 => step.outcome.clone(),
        XDP_DROP => Outcome::Other("a drop for another reason".to_owned()),
        other => Outcome::Other(format!("XDP action {other}")),
    })
}

fn sent(frame: &[u8]) -> Outcome {
    match (frame::link(frame), Segment::parse(frame)) {
        (Some(link), Some(segment)) => Outcome::Sent(link, segment),
        _ => Outcome::Other("a packet with a wrong checksum, or none of ours".to_owned()),
    }
}

/// Drops counted so far of the kind that the step expects.
fn expected_drops(store: &impl MapStore, step: &Step) -> anyhow::Result<u64> {
    match step.outcome {
        Outcome::Dropped(service_id, reason) => {
            Ok(store.service_counters(service_id)?[reason as usize])
        }
        _ => Ok(0),
    }
}
