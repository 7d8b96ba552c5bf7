//! What the kernel says about the loaded program and its maps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData};
use lb_lab::datapath::kernel::LoadedDatapath;

use crate::report::ProgramFacts;

/// Bytes in an instruction.
const INSTRUCTION_BYTES: usize = 8;

/// Reads everything about a datapath.
pub(crate) fn read(datapath: &mut LoadedDatapath) -> Result<ProgramFacts> {
    let info = datapath.program_info()?;
    let translated_bytes = info.size_translated().unwrap_or_default() as usize;
    let program = datapath.program_fd()?;
    let code = translated(program.as_fd(), translated_bytes)?;
    let map_bytes = map_bytes(datapath)?;
    Ok(ProgramFacts {
        verified_instructions: info.verified_instruction_count().unwrap_or_default(),
        deepest_frame_bytes: deepest_frame_bytes(&code),
        instructions: (code.len() / INSTRUCTION_BYTES) as u32,
        jited_bytes: info.size_jitted(),
        map_bytes,
    })
}

/// The memory of each map, the largest first. Unit: bytes.
pub(crate) fn map_bytes(datapath: &LoadedDatapath) -> Result<Vec<(String, u64)>> {
    let mut map_bytes = Vec::new();
    for (name, map) in datapath.maps() {
        if let Some(data) = map_data(map) {
            map_bytes.push((name.to_owned(), locked_bytes(data.fd().as_fd())?));
        }
    }
    map_bytes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(map_bytes)
}

/// The kinds of maps that the datapath has.
fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// A map's memory, as the kernel accounts it.
fn locked_bytes(fd: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.with_context(|| format!("{path} has no memlock line"))?
        .trim()
        .parse()
        .context(path)
}

/// `struct bpf_prog_info` up to the field that is asked for (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    translated_len: u32,
    jited_address: u64,
    translated_address: u64,
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    info_len: u32,
    info_address: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The program after the verifier's rewrites.
fn translated(fd: BorrowedFd<'_>, len: usize) -> Result<Vec<u8>> {
    let mut code = vec![0_u8; len];
    let mut info = ProgInfo {
        translated_len: len as u32,
        translated_address: code.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    let attr = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info_address: &raw mut info as u64,
    };
    // SAFETY: the attribute and both buffers outlive the call, with the lengths that they say.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attr,
            size_of::<InfoByFd>(),
        )
    };
    ensure!(
        result == 0,
        "BPF_OBJ_GET_INFO_BY_FD: {}",
        std::io::Error::last_os_error()
    );
    Ok(code)
}

/// The deepest stack slot that the program names, in whichever of its functions: r10 is the frame
/// pointer, and every access is relative to it or to a copy with a constant added.
fn deepest_frame_bytes(code: &[u8]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    const MOVE_64_REGISTER: u8 = 0xbf;
    const ADD_64_CONSTANT: u8 = 0x07;
    let mut copies = [false; 16];
    let mut deepest = 0;
    for instruction in code.as_chunks::<INSTRUCTION_BYTES>().0 {
        let [opcode, registers, low, high, constant @ ..] = *instruction;
        let (to, from) = (registers & 0x0f, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([low, high]));
        let depth = match opcode & 0x07 {
            1 if from == FRAME_POINTER => -offset,
            2 | 3 if to == FRAME_POINTER => -offset,
            _ if opcode == ADD_64_CONSTANT && copies[usize::from(to)] => {
                -i32::from_le_bytes(constant)
            }
            _ => 0,
        };
        copies[usize::from(to)] = opcode == MOVE_64_REGISTER && from == FRAME_POINTER;
        deepest = deepest.max(depth);
    }
    deepest as u32
}
