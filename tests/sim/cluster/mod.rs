//! Several nodes: the real datapath core, transitions, coordinators and virtual routers among simulated networks,
//! clients and faults, each node on a clock of its own.
//!
//! - [`plan`] draws from a seed what happens to backends, nodes and networks.
//! - [`world`] runs it; [`node`] is a node's `lbd` and datapath, [`vips`] its VRRP process.
//! - [`net`] has the two networks; [`links`] the sync link's real sessions over them, and [`table`] a node's flow
//!   table as the real replication of flows sees it, what that says going through [`flows`].
//! - [`rules`] switches single rules off, and [`proofs`] shows the hole that opens.

mod flows;
mod links;
mod net;
mod node;
mod outcome;
pub(crate) mod plan;
pub(crate) mod proofs;
pub(crate) mod report;
mod rules;
mod table;
mod vips;
mod world;

use outcome::Outcome;
use plan::Plan;
use rules::Rules;
use world::World;

/// Runs a plan.
fn run(plan: &Plan, rules: &Rules) -> Outcome {
    World::new(plan, rules).run()
}

/// The same, with each packet of one client shown.
fn run_following(plan: &Plan, rules: &Rules, client: Option<usize>) -> Outcome {
    World::new(plan, rules).following(client).run()
}
