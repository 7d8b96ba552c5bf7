//! A pinned map as the kernel records it: its shape, and its elements as bytes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::{MapData, MapError};
use aya::util::nr_cpus;

use super::{PinError, failed, sys};
use crate::maps::fault;

/// What the kernel allocates a map by (`struct bpf_map_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapShape {
    /// `enum bpf_map_type`.
    pub(crate) kind: u32,
    /// Unit: bytes.
    pub(crate) key_bytes: u32,
    /// Unit: bytes; of one CPU, where each has its own.
    pub(crate) value_bytes: u32,
    /// Its capacity.
    pub(crate) entries_max: u32,
    /// `BPF_F_*`, as given at its creation.
    pub(crate) flags: u32,
}

/// Types of maps that are named in messages, or matter here (`enum bpf_map_type`).
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const LPM_TRIE: u32 = 11;

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key_bytes,
            value_bytes,
            entries_max,
            flags,
        } = self;
        match *kind {
            HASH => write!(f, "a hash")?,
            ARRAY => write!(f, "an array")?,
            PER_CPU_ARRAY => write!(f, "a per-CPU array")?,
            LPM_TRIE => write!(f, "an LPM trie")?,
            other => write!(f, "a map of type {other}")?,
        }
        write!(
            f,
            " of {entries_max} entries, keys of {key_bytes} and values of {value_bytes} bytes, flags \
             {flags:#x}"
        )
    }
}

impl MapShape {
    /// Whether the two differ in nothing but their capacity.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        let entries_max = other.entries_max;
        Self {
            entries_max,
            ..*self
        } == *other
    }
}

/// A map that is open.
#[derive(Debug)]
pub(crate) struct RawMap {
    /// Its name.
    pub(crate) name: String,
    /// The kernel's id of it.
    pub(crate) id: u32,
    /// Its shape.
    pub(crate) shape: MapShape,
    data: MapData,
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }
}

impl RawMap {
    /// Opens the map that is pinned at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, MapError> {
        let data = MapData::from_pin(path)?;
        let name = path.file_name().unwrap_or_default();
        Self::new(name.to_string_lossy().into_owned(), data)
    }

    fn new(name: String, data: MapData) -> Result<Self, MapError> {
        let info = data.info()?;
        let shape = MapShape {
            kind: info.map_type()? as u32,
            key_bytes: info.key_size(),
            value_bytes: info.value_size(),
            entries_max: info.max_entries(),
            flags: info.map_flags(),
        };
        Ok(Self {
            name,
            id: info.id(),
            shape,
            data,
        })
    }

    /// Pins it at one more place.
    pub(crate) fn pin(&self, path: &Path) -> Result<(), PinError> {
        let pinned = sys::pin(self.as_fd(), path);
        fault::count_write();
        pinned.map_err(failed("pin the map at", path))
    }

    /// Whether its elements are numbered.
    pub(crate) fn is_array(&self) -> bool {
        matches!(self.shape.kind, ARRAY | PER_CPU_ARRAY)
    }

    /// Bytes that one element takes in user space: all CPUs' values, each on an 8-byte boundary.
    fn element_bytes(&self) -> io::Result<usize> {
        let one = self.shape.value_bytes as usize;
        if self.shape.kind != PER_CPU_ARRAY {
            return Ok(one);
        }
        let cpu_count = nr_cpus().map_err(|(_, error)| error)?;
        Ok(one.next_multiple_of(8) * cpu_count)
    }

    /// The element under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.element_bytes()?];
        let is_found = sys::lookup(self.as_fd(), key, &mut value)?;
        Ok(is_found.then_some(value))
    }

    /// Element `index` of an array.
    pub(crate) fn element(&self, index: u32) -> io::Result<Option<Vec<u8>>> {
        self.get(&index.to_ne_bytes())
    }

    /// Writes an element, as [`RawMap::get`] gave it.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        sys::update(self.as_fd(), key, value)
    }

    /// All keys. Nobody may delete any meanwhile.
    pub(crate) fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut next = vec![0; self.shape.key_bytes as usize];
        while sys::next_key(self.as_fd(), keys.last().map(Vec::as_slice), &mut next)? {
            keys.push(next.clone());
        }
        Ok(keys)
    }
}
