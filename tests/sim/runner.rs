//! Running plans: one, or many side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::balancer::Balancer;
use crate::classical::ClassicalNode;
use crate::config::Config;
use crate::node::{Build, Node};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::rules::Rules;
use crate::world::World;

/// The streams of the nodes' own randomness.
const NODE_STREAM: u64 = 1 << 44;

/// Runs a plan with our balancers.
pub(crate) fn run(plan: &Plan, rules: &Rules) -> Outcome {
    run_following(plan, rules, None)
}

/// The same, with each packet of one client shown.
pub(crate) fn run_following(plan: &Plan, rules: &Rules, client: Option<usize>) -> Outcome {
    let build = Build {
        set_count: plan.set_count,
        idle_timeout_s: plan.idle_timeout_s,
        rules: rules.clone(),
    };
    let make = |plan: &Plan, number: usize, config: &Config, now_ms: u64| -> Box<dyn Balancer> {
        let rng = Rng::new(plan.seed, NODE_STREAM + number as u64);
        Box::new(Node::new(config, &build, now_ms, rng))
    };
    World::new(plan, &make).following(client).run()
}

/// Runs a plan with classical balancers, each with a table of as many entries as ours.
pub(crate) fn run_classical(plan: &Plan) -> Outcome {
    let capacity = plan.set_count as usize * lb_common::abi::FLOW_SET_ENTRIES;
    let make = |_: &Plan, _: usize, config: &Config, _: u64| -> Box<dyn Balancer> {
        Box::new(ClassicalNode::new(config, capacity))
    };
    World::new(plan, &make).run()
}

/// Runs the plans of `seeds` on all cores, and hands out each with its outcome as it ends.
pub(crate) fn run_all<P, O>(
    seeds: std::ops::Range<u64>,
    plan_of: impl Fn(u64) -> P + Sync,
    run: impl Fn(&P) -> O + Sync,
    take: impl FnMut(P, O) + Send,
) {
    let next = AtomicU64::new(seeds.start);
    let take = Mutex::new(take);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let plan = plan_of(seed);
            let outcome = run(&plan);
            let mut take = take.lock().expect("no taker has panicked");
            take(plan, outcome);
        }
    };
    let thread_count = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..thread_count {
            scope.spawn(work);
        }
    });
}
