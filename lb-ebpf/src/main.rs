//! The XDP program. Built for `bpfel-unknown-none` by `cargo xtask build`; on the host this is an
//! empty program, so that the workspace builds with plain cargo.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
