//! The control plane: `lbd` and its client `lbctl`.
//!
//! A change walks one way: file or API → [`config`] → [`model`] → [`desired`] → [`reconcile`] →
//! [`maps`]. The [`engine`] is the one task that owns the model and writes the maps.

pub mod cluster;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod desired;
pub mod engine;
pub mod events;
pub mod forecast;
pub mod health;
pub mod hooks;
pub mod loader;
pub mod maps;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod peers;
pub mod pins;
mod program;
pub mod reconcile;
pub mod steering;
pub mod suggest;
pub mod sync;
pub mod tally;
pub mod transition;
pub mod vrrp;
pub mod ways;
