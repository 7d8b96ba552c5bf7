//! Programs of the benchmark; never part of the product. `generate` writes a fresh frame of a random
//! flow and hands it to the program under test; the others are what it is compared with.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
