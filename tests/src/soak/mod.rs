//! The soak: tens of thousands of checks of every cheap type on real servers, of which some are dead and some
//! say nothing, and what the checks leave behind: at lbd, at the servers, and in their kernels.
//!
//! [`site`] is the servers and lbd's configuration, [`traces`] what is looked at, [`run`] the course and the
//! judgement.

pub mod run;
pub mod servers;
pub mod site;
pub mod traces;
