//! Everything that the XDP program and the control plane agree on: the layout of the maps
//! ([`abi`]), the bounds ([`limits`]), the wire formats ([`wire`]), checksums, the flow hash, the
//! Maglev fill, the table of drop reasons, and the datapath itself ([`datapath::process`]).
//!
//! The crate knows neither aya nor tokio, allocates nothing and holds no `unsafe`: the same code
//! steers packets in the kernel, answers the fixtures on the host and explains decisions to people.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod bench;
pub mod checksum;
pub mod datapath;
pub mod drop_reason;
pub mod hash;
pub mod kernel;
pub mod limits;
pub mod maglev;
pub mod packet;
pub mod round_robin;
pub mod wire;
