//! The datapath on the host: the same core as in the kernel, over tables in plain memory.
//!
//! - [`tables`] holds what the maps hold; [`world`] builds it from services and backends.
//! - [`memory`] implements the core's `Kernel` and `Packet` over it.
//! - [`frame`] builds test frames with an independent library, checksums from scratch.
//! - [`fixtures`] is the table of packets: packet in → packet out, verdict, counters. It is run
//!   against the host core and, with [`kernel`], against the loaded program.

pub mod fixtures;
pub mod frame;
#[cfg(feature = "bpf")]
pub mod kernel;
pub mod memory;
pub mod tables;
pub mod world;
