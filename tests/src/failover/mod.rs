//! The failover proof: two balancers with connections through them, and what becomes of those, and of the
//! VIPs, when one of the two goes away, comes back, is handed over, is cut off.
//!
//! [`ground`] is the network with its servers, [`node`] what a balancer can be asked to do: [`ours`] is one of ours,
//! [`rival`] is keepalived with HAProxy. [`pair`] is two of them, of one make or of both. [`event`] is what happens; [`run`]
//! repeats it, [`probe`] and [`watch`] look at it from outside, and [`outcome`] counts.

mod acts;
pub mod darkness;
pub mod event;
pub mod ground;
pub mod node;
pub mod ours;
pub mod outcome;
pub mod pair;
pub mod probe;
pub mod report;
pub mod rival;
pub mod run;
pub mod watch;
