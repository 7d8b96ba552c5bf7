//! The outage proof: what it costs the clients that a backend dies, and how soon it is found out.
//!
//! [`requests`] is a load that goes on at its rate whatever becomes of single requests; [`death`] has the
//! ways to die; [`proof`] lets a backend die and come back under that load, and [`outcome`] says what it has
//! cost and whether that is what the check allows.

pub mod death;
pub mod outcome;
pub mod proof;
pub mod report;
pub mod requests;
