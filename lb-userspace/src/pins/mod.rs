//! What outlives the daemon: maps, program and links, pinned in a directory of each instance.
//!
//! ```text
//! /sys/fs/bpf/lbd/INSTANCE/
//!   maps/NAME             the maps in force, complete at every moment
//!   next/NAME             maps that are being prepared to take their place
//!   former/NAME           maps whose place was taken; about to go
//!   prog                  the program in force
//!   links/NAME-MODE       the program on an interface, and how
//!   netns-INODE/          the network namespace that the interfaces are in
//! ```
//!
//! An instance is a daemon's socket: its lock keeps two daemons out of one directory.

mod bpffs;
mod clock;
mod instance;
mod interfaces;
mod links;
mod maps;
pub(crate) mod migrate;
mod name;
pub mod peek;
mod raw_map;
mod survey;
mod sys;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) use clock::boottime_ns;
pub(crate) use instance::fresh_instance;
pub use interfaces::pinned_interfaces;
pub(crate) use links::{FoundLink, PinnedLink, switch};
pub(crate) use maps::{CARRIED, MapSet};
pub(crate) use raw_map::{MapShape, RawMap};
pub(crate) use survey::Found;

use crate::maps::fault;

/// The directory below bpffs that holds the instances' directories.
const ROOT: &str = "/sys/fs/bpf/lbd";

/// Why something cannot be pinned, or what is pinned cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no bpffs, and it cannot be mounted.
    #[error(
        "cannot mount bpffs at {}, without which the datapath would end with lbd: {source}. Mount it \
         yourself: `mount -t bpf bpffs {0}`",
        bpffs::MOUNT_POINT
    )]
    NoFileSystem {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something in the directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Maps of another version of the ABI.
    #[error(
        "{} holds a datapath of ABI version {found}, and this lbd ({}) knows version {} only: start an \
         lbd of that version, or take it off first, which breaks its connections: `lbd --detach{}`",
        directory.display(),
        env!("LB_VERSION"),
        lb_common::abi::VERSION,
        socket_option(socket)
    )]
    OtherVersion {
        /// The instance's directory.
        directory: PathBuf,
        /// The daemon's socket.
        socket: PathBuf,
        /// The version that is there.
        found: u32,
    },
    /// A map that is not what its version says.
    #[error(
        "{} is {found}, where ABI version {} has {wanted}: somebody else's, or damaged. Take the \
         datapath off, which breaks its connections: `lbd --detach{}`",
        path.display(),
        lb_common::abi::VERSION,
        socket_option(socket)
    )]
    OtherShape {
        /// The pin.
        path: PathBuf,
        /// The daemon's socket.
        socket: PathBuf,
        /// What is there.
        found: MapDescription,
        /// What should be.
        wanted: MapDescription,
    },
    /// What is in force does not fit into the new capacity.
    #[error(
        "`{setting}` is {max}, and the datapath that is in force needs {needed}: start lbd with the \
         former limit and remove what is too much, or raise it"
    )]
    TooSmall {
        /// The config key.
        setting: &'static str,
        /// Its value.
        max: u32,
        /// What it would have to be at the least.
        needed: u32,
    },
    /// The datapath serves another network namespace.
    #[error(
        "{} holds the datapath of another network namespace (inode {inode}): give this lbd another \
         --socket, or take that one off: `lbd --detach{}` in its namespace",
        directory.display(),
        socket_option(socket)
    )]
    OtherNamespace {
        /// The instance's directory.
        directory: PathBuf,
        /// The daemon's socket.
        socket: PathBuf,
        /// The namespace's inode.
        inode: u64,
    },
}

/// A map's shape, in words.
#[derive(Clone, Debug)]
pub struct MapDescription(String);

impl std::fmt::Display for MapDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&MapShape> for MapDescription {
    fn from(shape: &MapShape) -> Self {
        Self(shape.to_string())
    }
}

/// ` --socket PATH`, unless it is the default.
fn socket_option(socket: &Path) -> String {
    if socket == Path::new(crate::control::SOCKET_DEFAULT) {
        return String::new();
    }
    format!(" --socket {}", socket.display())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    move |source| PinError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The directory of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    socket: PathBuf,
    directory: PathBuf,
}

impl Pins {
    /// The directory of the daemon behind `socket`.
    pub fn of(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            directory: Path::new(ROOT).join(name::instance(socket)),
        }
    }

    /// Its path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The command that takes the datapath off without its daemon.
    pub(crate) fn way_off(&self) -> String {
        format!("`lbd --detach{}`", socket_option(&self.socket))
    }

    /// Whether anything is there.
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// The maps in force.
    pub(crate) fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    /// Maps that are being prepared.
    pub(crate) fn next(&self) -> PathBuf {
        self.directory.join("next")
    }

    /// Maps whose place was taken.
    fn former(&self) -> PathBuf {
        self.directory.join("former")
    }

    fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    fn program(&self) -> PathBuf {
        self.directory.join("prog")
    }

    /// Makes the directory of this instance, for interfaces of this network namespace.
    pub(crate) fn prepare(&self) -> Result<(), PinError> {
        bpffs::ensure()?;
        let links = self.links();
        fs::create_dir_all(&links).map_err(failed("make the directory", &links))
    }

    /// An empty directory for maps that are being prepared.
    pub(crate) fn prepare_next(&self) -> Result<PathBuf, PinError> {
        let next = self.next();
        remove_all(&next)?;
        fs::create_dir(&next).map_err(failed("make the directory", &next))?;
        fault::count_write();
        Ok(next)
    }

    /// The maps that were prepared take the place of those in force. Killed in between, what is left is
    /// understood by [`Pins::survey`].
    pub(crate) fn take_next(&self) -> Result<(), PinError> {
        let (maps, next, former) = (self.maps(), self.next(), self.former());
        if maps.is_dir() {
            remove_all(&former)?;
            fs::rename(&maps, &former).map_err(failed("rename", &maps))?;
            fault::count_write();
        }
        fs::rename(&next, &maps).map_err(failed("rename", &next))?;
        fault::count_write();
        remove_all(&former)
    }

    /// Takes back what [`Pins::prepare_next`] began.
    pub(crate) fn drop_next(&self) -> Result<(), PinError> {
        remove_all(&self.next())
    }

    /// Pins the program that is in force now, in the place of the former one.
    pub(crate) fn pin_program(&self, program: BorrowedFd<'_>) -> Result<(), PinError> {
        let (path, draft) = (self.program(), self.directory.join("prog-next"));
        remove_all(&draft)?;
        sys::pin(program, &draft).map_err(failed("pin the program at", &draft))?;
        fs::rename(&draft, &path).map_err(failed("rename", &draft))
    }

    /// Notes that the interfaces are in this process's network namespace.
    pub(crate) fn claim_namespace(&self) -> Result<(), PinError> {
        for (path, _) in self.namespaces()? {
            remove_all(&path)?;
        }
        let path = self.directory.join(format!("netns-{}", own_namespace()?));
        fs::create_dir(&path).map_err(failed("make the directory", &path))
    }

    /// The network namespace that the links are in, where it is known and another than this one.
    pub(crate) fn other_namespace(&self) -> Result<Option<u64>, PinError> {
        let own = own_namespace()?;
        let mut others = self.namespaces()?.into_iter().map(|(_, inode)| inode);
        Ok(others.find(|inode| *inode != own))
    }

    fn namespaces(&self) -> Result<Vec<(PathBuf, u64)>, PinError> {
        let namespace = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let inode = name.strip_prefix("netns-")?.parse().ok()?;
            Some((path, inode))
        };
        Ok(entries(&self.directory)?
            .into_iter()
            .filter_map(namespace)
            .collect())
    }

    /// Takes the program off every interface and removes everything. To be called when no VIP is left
    /// that packets would be answered for.
    ///
    /// # Errors
    /// [`PinError::Io`]: what could not be removed is named, and the rest stays too.
    pub fn remove(&self) -> Result<(), PinError> {
        if !self.exists() {
            return Ok(());
        }
        for link in self.open_links()? {
            link.pin.detach()?;
        }
        remove_all(&self.directory)
    }
}

fn own_namespace() -> Result<u64, PinError> {
    // Of this thread: a test's process may have several.
    let path = Path::new("/proc/thread-self/ns/net");
    let metadata = fs::metadata(path).map_err(failed("look at", path))?;
    Ok(metadata.ino())
}

/// What is in a directory, by name; nothing if it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(failed("read", directory))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(failed("read", directory))?;
    paths.sort();
    Ok(paths)
}

/// Removes a pin, or a directory with what is in it; fine if there is none.
fn remove_all(path: &Path) -> Result<(), PinError> {
    let is_directory = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("look at", path))?.is_dir(),
    };
    if !is_directory {
        return fs::remove_file(path).map_err(failed("remove", path));
    }
    for entry in entries(path)? {
        remove_all(&entry)?;
    }
    fs::remove_dir(path).map_err(failed("remove", path))
}
