//! The `bpf()` calls on pinned objects that aya has no words for, or makes with decisions of its own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
#[derive(Clone, Copy)]
#[repr(i64)]
enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapNextKey = 4,
    Pin = 6,
    Get = 7,
    ProgramById = 13,
    InfoByFd = 15,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// `BPF_LINK_TYPE_XDP` (`enum bpf_link_type`).
const LINK_TYPE_XDP: u32 = 6;

fn call<T>(command: Command, attr: &T) -> io::Result<i64> {
    // SAFETY: `attr` lives during the call, and its size is given; the kernel takes the rest of
    // `union bpf_attr` as zero. Pointers in it are those of live buffers of the caller.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins an object at `path`, which must not exist.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attr = ObjectAttr {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    call(Command::Pin, &attr).map(drop)
}

/// Opens the object that is pinned at `path`.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attr = ObjectAttr {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = call(Command::Get, &attr)?;
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What the kernel says of a link (the head of `struct bpf_link_info`, with its part for XDP).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    /// The program's id.
    pub(super) program_id: u32,
    pad: u32,
    /// The interface's index; 0 when the interface has gone.
    pub(super) ifindex: u32,
    pad_end: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Asks the kernel about an XDP link. Anything else is an error.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let attr = InfoAttr {
        fd: link.as_raw_fd() as u32,
        len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(Command::InfoByFd, &attr)?;
    if info.kind != LINK_TYPE_XDP {
        return Err(io::Error::other("it is no link of an XDP program"));
    }
    Ok(info)
}

/// The head of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgramInfo {
    kind_id_and_tag: [u32; 4],
    code_lengths: [u32; 2],
    code: [u64; 2],
    loaded_ns: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
}

/// Maps that a program of ours may have, and then some.
const MAP_IDS_MAX: usize = 64;

/// Opens the program of this id; `None` if it has gone.
pub(super) fn program(program_id: u32) -> io::Result<Option<OwnedFd>> {
    // `{ prog_id, next_id, open_flags }`
    let attr = [program_id, 0, 0];
    match call(Command::ProgramById, &attr) {
        // SAFETY: the kernel has just made this descriptor for us, with close-on-exec set.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ids of the maps that the program of this id uses; none if it has gone.
pub(super) fn program_map_ids(program_id: u32) -> io::Result<Vec<u32>> {
    let Some(program) = program(program_id)? else {
        return Ok(Vec::new());
    };
    let mut ids = vec![0_u32; MAP_IDS_MAX];
    let mut info = ProgramInfo {
        map_count: MAP_IDS_MAX as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let attr = InfoAttr {
        fd: program.as_raw_fd() as u32,
        len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(Command::InfoByFd, &attr)?;
    ids.truncate(info.map_count as usize);
    Ok(ids)
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Puts `program` in the place of the link's program, atomically: a packet is handled by the one or the
/// other. `ENOLINK`: the interface has gone.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdateAttr {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    call(Command::LinkUpdate, &attr).map(drop)
}

/// Takes the link's program off its interface, whoever else holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let attr = link.as_raw_fd() as u32;
    call(Command::LinkDetach, &attr).map(drop)
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: *const u8, other: *const u8) -> ElementAttr {
    ElementAttr {
        map: map.as_raw_fd() as u32,
        pad: 0,
        key: key as u64,
        value_or_next_key: other as u64,
        flags: 0,
    }
}

/// Reads an element into `value`; `false` if there is none. The buffers must have the map's sizes.
pub(super) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let attr = element(map, key.as_ptr(), value.as_mut_ptr());
    found(call(Command::MapLookup, &attr))
}

/// Writes an element. The buffers must have the map's sizes.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let attr = element(map, key.as_ptr(), value.as_ptr());
    call(Command::MapUpdate, &attr).map(drop)
}

/// Writes the key after `key` (the first, without one) into `next`; `false` at the end.
pub(super) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let key = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
    found(call(
        Command::MapNextKey,
        &element(map, key, next.as_mut_ptr()),
    ))
}

fn found(answer: io::Result<i64>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
