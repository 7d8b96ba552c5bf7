//! What an earlier daemon has left, and which of it is in force.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_common::abi::{self, Instance, map_name};
use tracing::{info, warn};

use super::migrate::Precedence;
use super::migrate::flows::{self, Extent};
use super::{FoundLink, MapSet, PinError, Pins, RawMap, boottime_ns, failed, remove_all, sys};

/// The datapath of an earlier daemon.
#[derive(Debug)]
pub(crate) struct Found {
    /// The maps in force.
    pub(crate) maps: MapSet,
    /// What they say of themselves.
    pub(crate) instance: Instance,
    /// The interfaces that the program is on.
    pub(crate) links: Vec<FoundLink>,
}

impl Found {
    /// How long ago a daemon last looked after it.
    pub(crate) fn age(&self) -> Duration {
        age(&self.instance)
    }
}

/// How long ago a daemon last looked after the datapath.
pub(super) fn age(instance: &Instance) -> Duration {
    Duration::from_nanos(boottime_ns().saturating_sub(instance.heartbeat_ns))
}

impl Pins {
    /// Finds out what is there, and puts in order what a kill has left half done: afterwards the maps in
    /// force are in `maps/`, and no others are left. `None` if there is no datapath.
    ///
    /// # Errors
    /// [`PinError`]; nothing that packets use was touched then.
    pub(crate) fn survey(&self) -> Result<Option<Found>, PinError> {
        self.check_namespace()?;
        let links = self.open_links()?;
        self.refuse_other_versions()?;
        self.finish_exchange(&links)?;
        let maps = MapSet::open(&self.maps())?;
        let Some(instance) = maps.get(map_name::INSTANCE) else {
            self.forget_links(&links)?;
            return Ok(None);
        };
        let path = self.maps().join(map_name::INSTANCE);
        let instance = instance.instance().map_err(failed("read", &path))?;
        Ok(Some(Found {
            maps,
            instance,
            links,
        }))
    }

    fn refuse_other_versions(&self) -> Result<(), PinError> {
        for directory in [self.maps(), self.former(), self.next()] {
            let path = directory.join(map_name::INSTANCE);
            if !path.exists() {
                continue;
            }
            let opened = RawMap::open(&path).map_err(std::io::Error::other);
            let version = opened.and_then(|map| map.abi_version());
            match version.map_err(failed("read", &path))? {
                // 0: a daemon was ended before anything was in force.
                0 | abi::VERSION => {}
                // A reader of an earlier version's maps would get its arm here.
                found => {
                    return Err(PinError::OtherVersion {
                        directory: self.directory.clone(),
                        socket: self.socket.clone(),
                        found,
                    });
                }
            }
        }
        Ok(())
    }

    /// Links to interfaces of another namespace are none of ours, however their indices may look. Where
    /// the interfaces have gone, so has the matter.
    ///
    /// # Errors
    /// [`PinError::OtherNamespace`].
    pub(crate) fn check_namespace(&self) -> Result<(), PinError> {
        let is_alive = |link: &FoundLink| link.ifindex != 0;
        match self.other_namespace()? {
            Some(inode) if self.open_links()?.iter().any(is_alive) => {
                Err(PinError::OtherNamespace {
                    directory: self.directory.clone(),
                    socket: self.socket.clone(),
                    inode,
                })
            }
            _ => Ok(()),
        }
    }

    /// A daemon may have been killed while other maps took the place of those in force. It copies all
    /// before the first link changes, so that the new maps are right as soon as a linked program uses
    /// them; only flows that began meanwhile are missing there.
    fn finish_exchange(&self, links: &[FoundLink]) -> Result<(), PinError> {
        let next = MapSet::open(&self.next())?;
        let maps = MapSet::open(&self.maps())?;
        let former = MapSet::open(&self.former())?;
        let predecessor = if maps.is_empty() { &former } else { &maps };
        let is_taking_over = !next.is_empty()
            && (maps.is_empty() && !former.is_empty() || is_in_use(&next, predecessor, links)?);
        if is_taking_over {
            warn!("lbd was ended while it exchanged the maps: finishing that");
            let carried = flows::carry(predecessor, &next, Extent::All, Precedence::Later)?;
            info!(flows = carried.count, "flows carried over");
            return self.take_next();
        }
        remove_all(&self.next())?;
        remove_all(&self.former())
    }

    /// Without maps there is nothing that a program could be right about.
    fn forget_links(&self, links: &[FoundLink]) -> Result<(), PinError> {
        links.iter().try_for_each(|link| {
            warn!(
                interface = link.interface,
                "a link without maps is left over: detached"
            );
            link.pin.detach()
        })
    }
}

/// Whether a linked program uses a map of `set` that `other` does not have.
fn is_in_use(set: &MapSet, other: &MapSet, links: &[FoundLink]) -> Result<bool, PinError> {
    let own = set.ids_beyond(other);
    let programs: BTreeSet<u32> = links.iter().map(|link| link.program_id).collect();
    for program in programs {
        let ids =
            sys::program_map_ids(program).map_err(failed("ask for the maps of", &set.directory))?;
        if ids.iter().any(|id| own.contains(id)) {
            return Ok(true);
        }
    }
    Ok(false)
}
