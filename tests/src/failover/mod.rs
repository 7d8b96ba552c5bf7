//! The failover proof: two balancers with connections through them, and what becomes of those, and of the
//! VIPs, when one of the two goes away, comes back, is handed over, is cut off.
//!
//! [`ground`] is the network with its servers, [`pair`] what a pair can be asked to do: [`ours`] is two
//! nodes of ours, [`rival`] is keepalived with HAProxy. [`event`] is what happens; [`run`] repeats it, [`probe`] and [`watch`] look at
//! it from outside, and [`outcome`] counts.

mod acts;
pub mod darkness;
pub mod event;
pub mod ground;
pub mod ours;
pub mod outcome;
pub mod pair;
pub mod probe;
pub mod report;
pub mod rival;
pub mod run;
pub mod watch;
