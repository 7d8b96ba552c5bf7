//! Health checks: asking every backend, in its own language, whether it answers.
//!
//! [`probe`] asks once. What an answer means for the state of a backend is decided without I/O and
//! without a clock of its own; a runner asks at the right times and tells the engine.

pub mod board;
pub mod judge;
pub mod machine;
pub mod outcome;
pub mod probe;
pub mod reaction;
mod recall;
pub mod roster;
pub mod runner;
pub mod schedule;
mod unfit;
