//! The XDP program: a thin adapter between the kernel and lb-common's datapath. `lb/packet.rs` is the only
//! place with packet pointers, `lb/kernel.rs` the only one with map calls.
//!
//! Built for `bpfel-unknown-none` by `cargo xtask build`. On the host this is an empty program, so
//! that the workspace builds, tests and lints with plain cargo.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The BPF target has no `core::sync::atomic` read-modify-write: the intrinsic is the way to one. And
// no stable inline assembly: one empty statement keeps a bounds check (lb/packet.rs).
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics, asm_experimental_arch),
    allow(internal_features)
)]

#[cfg(target_arch = "bpf")]
mod lb;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
