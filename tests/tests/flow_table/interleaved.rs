//! Two CPUs at one set, step by step: one's whole packet before each single access of the other's.

use std::cell::Cell;

use lb_common::wire::tcp::TcpFlags;

use crate::concurrent::{ACK, Flow, SYN, check_records, kernel};
use crate::shared::{SharedKernel, call_off, interrupt};

/// A set that flows are recorded in while two CPUs look for room in it.
struct Scene {
    name: &'static str,
    prepare: fn(&'static SharedKernel),
}

/// Seconds after which a half-open flow is protected no more, and those after which these flows expire.
const OLD_S: u32 = 3;
const EXPIRED_S: u32 = 6;

fn open_all(kernel: &'static SharedKernel, flows: std::ops::Range<u64>) {
    for flow in flows.map(Flow) {
        flow.send(kernel, SYN);
        flow.send(kernel, ACK);
    }
}

fn pass(kernel: &SharedKernel, seconds: u32) {
    (0..seconds).for_each(|_| kernel.tick());
}

/// In each of them, one of the entries is the best for everybody.
const SCENES: [Scene; 4] = [
    Scene {
        name: "an empty set",
        prepare: |_| (),
    },
    Scene {
        name: "one free entry",
        prepare: |kernel| open_all(kernel, 0..7),
    },
    Scene {
        name: "one expired entry",
        prepare: |kernel| {
            open_all(kernel, 0..1);
            pass(kernel, 1);
            open_all(kernel, 1..8);
            pass(kernel, EXPIRED_S - 1);
        },
    },
    Scene {
        name: "an old half-open flow",
        prepare: |kernel| {
            (0..4).map(Flow).for_each(|flow| {
                flow.send(kernel, SYN);
            });
            pass(kernel, OLD_S);
        },
    },
];

/// A packet.
type Sent = (Flow, TcpFlags);

/// This CPU's packet, and another CPU's whole one before its access number `access` to an entry. Returns
/// where both went; `None` if this CPU's packet needs fewer accesses.
fn interleave(
    kernel: &'static SharedKernel,
    (this, this_flags): Sent,
    (other, other_flags): Sent,
    access: u32,
) -> Option<[u16; 2]> {
    let others: &'static Cell<u16> = Box::leak(Box::default());
    interrupt(access, move || others.set(other.send(kernel, other_flags)));
    let answer = this.send(kernel, this_flags);
    (!call_off()).then(|| [answer, others.get()])
}

/// A flow that is on record in none of the scenes, and another.
const NEWCOMERS: [Flow; 2] = [Flow(100), Flow(101)];

/// Another CPU's SYN takes an entry at any moment of the packet of a flow that is on record there, or was,
/// or wants to be: each goes to its own backend and stays on record with that.
#[test]
fn no_packet_follows_another_flows_record() {
    let [newcomer, other] = NEWCOMERS;
    for scene in &SCENES {
        for this in (0..8).map(Flow).chain([newcomer]) {
            for flags in [SYN, ACK] {
                let steps = (0..).map_while(|access| {
                    let kernel = kernel(1);
                    (scene.prepare)(kernel);
                    let answers = interleave(kernel, (this, flags), (other, SYN), access)?;
                    assert!(
                        this.is_its(answers[0]) && other.is_its(answers[1]),
                        "{}, {this:?} {flags:?}, access {access}: {answers:?}",
                        scene.name
                    );
                    check_records(kernel);
                    assert_eq!(kernel.busy_count(), 0);
                    Some(())
                });
                assert!(steps.count() > 2, "{}, {this:?} {flags:?}", scene.name);
            }
        }
    }
}
