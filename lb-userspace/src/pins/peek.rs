//! A look at a datapath without a daemon, which changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_common::abi::{self, map_name};

use super::survey::age;
use super::{PinError, Pins, RawMap, failed};

/// What is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Where.
    pub directory: PathBuf,
    /// The version of its maps.
    pub abi_version: u32,
    /// How long ago a daemon last looked after it; `None` where its version is not ours.
    pub unattended: Option<Duration>,
    /// The interfaces that the program is on: name when attached, and mode.
    pub interfaces: Vec<(String, &'static str)>,
}

/// Looks at the datapath of the daemon behind `socket`; `None` if there is none.
///
/// # Errors
/// [`PinError::Io`]: usually for want of root's rights.
pub fn look(socket: &Path) -> Result<Option<Peek>, PinError> {
    let pins = Pins::of(socket);
    let path = pins.maps().join(map_name::INSTANCE);
    if !std::fs::exists(&path).map_err(failed("look at", &path))? {
        return Ok(None);
    }
    let opened = RawMap::open(&path).map_err(std::io::Error::other);
    let map = opened.map_err(failed("open the map", &path))?;
    let abi_version = map.abi_version().map_err(failed("read", &path))?;
    let unattended = match abi_version {
        abi::VERSION => Some(age(&map.instance().map_err(failed("read", &path))?)),
        _ => None,
    };
    let links = pins.open_links()?.into_iter();
    Ok(Some(Peek {
        directory: pins.directory().to_owned(),
        abi_version,
        unattended,
        interfaces: links
            .filter(|link| link.ifindex != 0)
            .map(|link| (link.interface, link.mode.label()))
            .collect(),
    }))
}
