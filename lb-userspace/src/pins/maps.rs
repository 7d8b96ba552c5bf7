//! A directory of pinned maps, and its comparison with what this build wants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lb_common::abi::map_name;

use super::{MapShape, PinError, RawMap, entries, failed};

/// The maps that outlive a daemon. The others hold nothing that matters beyond a packet or a program:
/// events, log, scratch, constants.
pub(crate) const CARRIED: [&str; 15] = [
    map_name::INSTANCE,
    map_name::SERVICES,
    map_name::SERVICE_LINES,
    map_name::VIPS,
    map_name::RINGS,
    map_name::BACKENDS,
    map_name::BACKEND_STATS,
    map_name::COUNTERS,
    map_name::ROUNDS,
    map_name::FLOWS,
    map_name::FLOW_ORIGINS,
    map_name::SUPPRESSED,
    map_name::NAT_REPLIES,
    map_name::ROUTES,
    map_name::NEIGHBOURS,
];

/// The maps of a directory.
#[derive(Debug)]
pub(crate) struct MapSet {
    /// Where they are pinned.
    pub(crate) directory: PathBuf,
    maps: BTreeMap<String, RawMap>,
}

/// How what is pinned compares with what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Maps of another capacity.
    pub(crate) resized: BTreeSet<&'static str>,
    /// Maps that are not there.
    pub(crate) missing: BTreeSet<&'static str>,
}

impl MapSet {
    /// Opens what is pinned in `directory`; nothing if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, PinError> {
        let mut maps = BTreeMap::new();
        for path in entries(directory)? {
            let opened = RawMap::open(&path).map_err(std::io::Error::other);
            let map = opened.map_err(failed("open the map", &path))?;
            maps.insert(map.name.clone(), map);
        }
        Ok(Self {
            directory: directory.to_owned(),
            maps,
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// A map by its name.
    pub(crate) fn get(&self, name: &str) -> Option<&RawMap> {
        self.maps.get(name)
    }

    /// A map that a complete set has.
    pub(crate) fn require(&self, name: &'static str) -> Result<&RawMap, PinError> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let path = self.directory.join(name);
        self.get(name)
            .ok_or_else(|| failed("open the map", &path)(missing()))
    }

    /// The kernel's ids of those maps that `other` does not have.
    pub(super) fn ids_beyond(&self, other: &Self) -> BTreeSet<u32> {
        let others: BTreeSet<u32> = other.maps.values().map(|map| map.id).collect();
        let ids = self.maps.values().map(|map| map.id);
        ids.filter(|id| !others.contains(id)).collect()
    }

    /// Compares each map with what this build wants, by the kernel's own record.
    ///
    /// # Errors
    /// The first map that differs in more than its capacity.
    pub(crate) fn compare(
        &self,
        wanted: &BTreeMap<&'static str, MapShape>,
        socket: &Path,
    ) -> Result<Fit, PinError> {
        let mut fit = Fit::default();
        for (name, wanted) in wanted {
            let Some(map) = self.get(name) else {
                fit.missing.insert(name);
                continue;
            };
            match compare(&map.shape, wanted) {
                Comparison::Same => {}
                Comparison::Resized => drop(fit.resized.insert(name)),
                Comparison::Different => {
                    return Err(PinError::OtherShape {
                        path: self.directory.join(name),
                        socket: socket.to_owned(),
                        found: (&map.shape).into(),
                        wanted: wanted.into(),
                    });
                }
            }
        }
        Ok(fit)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    Resized,
    Different,
}

fn compare(found: &MapShape, wanted: &MapShape) -> Comparison {
    if found == wanted {
        Comparison::Same
    } else if found.is_alike(wanted) {
        Comparison::Resized
    } else {
        Comparison::Different
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: MapShape = MapShape {
        kind: 2,
        key_bytes: 4,
        value_bytes: 64,
        entries_max: 4_097,
        flags: 1 << 10,
    };

    #[test]
    fn nothing_but_the_capacity_may_differ() {
        assert_eq!(compare(&WANTED, &WANTED), Comparison::Same);
        let resized = MapShape {
            entries_max: 9,
            ..WANTED
        };
        assert_eq!(compare(&resized, &WANTED), Comparison::Resized);
        let different = [
            MapShape { kind: 1, ..WANTED },
            MapShape {
                key_bytes: 8,
                ..WANTED
            },
            MapShape {
                value_bytes: 56,
                ..WANTED
            },
            MapShape { flags: 0, ..WANTED },
            MapShape {
                flags: 0,
                ..resized
            },
        ];
        for found in different {
            assert_eq!(compare(&found, &WANTED), Comparison::Different, "{found}");
        }
    }

    #[test]
    fn a_shape_is_told_in_words() {
        assert_eq!(
            WANTED.to_string(),
            "an array of 4097 entries, keys of 4 and values of 64 bytes, flags 0x400"
        );
    }
}
