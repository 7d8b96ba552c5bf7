//! This node as one of several: what brings the VRRP process, the sync link and the engine together.

pub mod facts;
pub mod hash_key;
pub mod kinds;
pub mod status;
pub mod task;
mod view;
