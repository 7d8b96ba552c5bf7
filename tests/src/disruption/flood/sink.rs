//! Where the flood ends: behind the balancer. What is under test is the balancer; the backends, on the
//! same two cores, would be what fails first.

use anyhow::Result;

use crate::netns::Netns;
use crate::xdp_pass;

/// Half of the prefix for benchmarks, 198.18.0.0/15 (RFC 2544): the flood's sources are in
/// 198.18.0.0/16.
pub(super) const SOURCE_V4: [u8; 4] = [198, 18, 0, 0];
/// The prefix for benchmarks in IPv6, 2001:2::/48 (RFC 5180).
pub(super) const SOURCE_V6: [u16; 8] = [0x2001, 2, 0, 0, 0, 0, 0, 0];

/// linux/bpf_common.h, linux/bpf.h: loads of 16 and 32 bits, 64-bit arithmetic, jumps.
const LOAD_16: u8 = 0x69;
const LOAD_32: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const GOTO: u8 = 0x05;
const IF_GREATER: u8 = 0x2d;
const IF_EQUAL_NUMBER: u8 = 0x15;
const IF_UNEQUAL_NUMBER: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Drops what comes from the flood's sources and passes everything else. Addresses and types are
/// compared as they stand in the frame, read on a little-endian machine.
static PROGRAM: [u64; 17] = [
    /*  0 */ instruction(LOAD_32, 2, 1, 0, 0), // r2: the frame
    /*  1 */ instruction(LOAD_32, 3, 1, 4, 0), // r3: its end
    /*  2 */ instruction(MOVE, 4, 2, 0, 0),
    /*  3 */ instruction(ADD_NUMBER, 4, 0, 0, 30), // up to either source's first bytes
    /*  4 */ instruction(IF_GREATER, 4, 3, 8, 0), // too short: 13
    /*  5 */ instruction(LOAD_16, 5, 2, 12, 0), // the type
    /*  6 */ instruction(IF_EQUAL_NUMBER, 5, 0, 4, 0x0008), // IPv4: 11
    /*  7 */ instruction(IF_UNEQUAL_NUMBER, 5, 0, 5, 0xdd86), // not IPv6: 13
    /*  8 */ instruction(LOAD_32, 5, 2, 22, 0),
    /*  9 */ instruction(IF_EQUAL_NUMBER, 5, 0, 5, 0x0200_0120), // 2001:2: 15
    /* 10 */ instruction(GOTO, 0, 0, 2, 0), // 13
    /* 11 */ instruction(LOAD_16, 5, 2, 26, 0),
    /* 12 */ instruction(IF_EQUAL_NUMBER, 5, 0, 2, 0x12c6), // 198.18: 15
    /* 13 */ instruction(MOVE_NUMBER, 0, 0, 0, XDP_PASS),
    /* 14 */ instruction(EXIT, 0, 0, 0, 0),
    /* 15 */ instruction(MOVE_NUMBER, 0, 0, 0, XDP_DROP),
    /* 16 */ instruction(EXIT, 0, 0, 0, 0),
];

/// `struct bpf_insn`: code, destination and source register, offset, immediate number.
const fn instruction(code: u8, destination: u8, source: u8, offset: u16, number: u32) -> u64 {
    let registers = (destination | source << 4) as u64;
    code as u64 | registers << 8 | (offset as u64) << 16 | (number as u64) << 32
}

/// Puts the sink on the port of the switch that the balancer sends into.
pub(super) fn attach(switch: &Netns, port: &str) -> Result<()> {
    xdp_pass::attach_program(switch, port, &PROGRAM)
}
