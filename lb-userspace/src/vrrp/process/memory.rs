//! What a process leaves to its successor: a file beside the socket, and a time stamp that costs nothing to renew.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::engine::StateFile;
use crate::vrrp::protocol::{Configuration, Family, Place};
use crate::vrrp::router::Saved;

/// What is added to the socket's name for the time stamp's file.
const ALIVE_SUFFIX: &str = ".alive";
const MODE: u32 = 0o600;
/// The time stamp is renewed so often at most. Unit: microseconds.
const STAMP_EVERY_US: u64 = 2_000;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot of the node that it is about.
    pub(super) boot: String,
    /// What was to be done.
    pub(super) configuration: Configuration,
    /// The routers as they were.
    pub(super) routers: Vec<SavedRouter>,
    /// The addresses that we have added, and where.
    pub(super) vips: BTreeMap<IpAddr, Place>,
    /// The interfaces that we have made.
    #[serde(default)]
    pub(super) macvlans: BTreeMap<String, u32>,
    /// Settings of the kernel that we have changed, below `/proc/sys`, with what they were.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
}

/// A router as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedRouter {
    /// Its group's name.
    pub(super) group: String,
    /// Its family.
    pub(super) family: Family,
    /// What it was.
    pub(super) saved: Saved,
}

/// The two files.
#[derive(Debug)]
pub(super) struct Memory {
    file: StateFile,
    alive: Option<File>,
    alive_path: PathBuf,
    written: Option<Vec<u8>>,
    stamped_us: u64,
    is_failing: bool,
}

/// What a former process has left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    /// What it has written.
    pub(super) record: Record,
    /// Since its last advertisement; `None`: it was in another boot of the node, or there was none. Unit:
    /// microseconds.
    pub(super) age_us: Option<u64>,
}

impl Memory {
    /// Opens the files of the process behind `socket`.
    pub(super) fn open(socket: &Path) -> Self {
        let file = StateFile::of_vrrp(socket);
        let mut alive_path = socket.as_os_str().to_owned();
        alive_path.push(ALIVE_SUFFIX);
        let alive_path = PathBuf::from(alive_path);
        let alive = open_alive(&alive_path).inspect_err(|error| {
            warn!(
                "{}: {error}: a successor will not know when this process ended",
                alive_path.display()
            );
        });
        Self {
            file,
            alive: alive.ok(),
            alive_path,
            written: None,
            stamped_us: 0,
            is_failing: false,
        }
    }

    /// What a former process has left, now that it is `now_us` (CLOCK_BOOTTIME) in the boot `boot`. A file that is
    /// damaged or not ours is as good as none: nothing that is not certain is resumed.
    pub(super) fn legacy(&self, boot: &str, now_us: u64) -> Legacy {
        let read = self.file.read().map_err(|error| error.to_string());
        let record: Record = match read.map(|bytes| bytes.as_deref().map(serde_json::from_slice)) {
            Ok(None) => return Legacy::default(),
            Ok(Some(Ok(record))) => record,
            Ok(Some(Err(error))) => {
                warn!(
                    "{} is damaged, and left aside: {error}",
                    self.file.path().display()
                );
                return Legacy::default();
            }
            Err(error) => {
                warn!("{error}");
                return Legacy::default();
            }
        };
        if record.boot != boot || boot.is_empty() {
            let configuration = record.configuration;
            return Legacy {
                record: Record {
                    configuration,
                    ..Record::default()
                },
                age_us: None,
            };
        }
        let stamp = self.stamp().filter(|stamp| (1..=now_us).contains(stamp));
        Legacy {
            record,
            age_us: stamp.map(|stamp| now_us - stamp),
        }
    }

    fn stamp(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.alive.as_ref()?.read_exact_at(&mut bytes, 0).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Notes that everything was in time at `now_us` (CLOCK_BOOTTIME).
    pub(super) fn note_alive(&mut self, now_us: u64) {
        if now_us < self.stamped_us + STAMP_EVERY_US {
            return;
        }
        self.stamped_us = now_us;
        if let Some(alive) = &self.alive {
            // A stamp that is not written is an old one: the successor resumes nothing.
            let _old = alive.write_at(&now_us.to_le_bytes(), 0);
        }
    }

    /// Writes the record, if it has changed. Where that fails it is logged once, and the next call tries again.
    pub(super) fn save(&mut self, record: &Record) {
        let Ok(bytes) = serde_json::to_vec_pretty(record) else {
            return;
        };
        if self.written.as_ref() == Some(&bytes) {
            return;
        }
        match self.file.write(&bytes) {
            Ok(()) => {
                self.written = Some(bytes);
                self.is_failing = false;
            }
            Err(error) => {
                if !self.is_failing {
                    warn!("{error}: a successor would not know what this process has done");
                }
                self.is_failing = true;
            }
        }
    }

    /// Whether the record in the file is an old one, since the last one could not be written.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Removes the files: there is nothing to resume.
    pub(super) fn remove(&mut self) {
        if let Err(error) = self.file.remove() {
            warn!("{error}");
        }
        self.alive = None;
        if let Err(error) = std::fs::remove_file(&self.alive_path) {
            warn!("cannot remove {}: {error}", self.alive_path.display());
        }
    }
}

fn open_alive(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::State;

    fn record(boot: &str) -> Record {
        Record {
            boot: boot.to_owned(),
            configuration: Configuration {
                node: "lb1".to_owned(),
                ..Configuration::default()
            },
            routers: vec![SavedRouter {
                group: "web".to_owned(),
                family: Family::Ipv4,
                saved: Saved {
                    state: State::Active,
                    yields: false,
                },
            }],
            vips: BTreeMap::from([(
                IpAddr::from([203, 0, 113, 10]),
                Place {
                    interface: "eth0".to_owned(),
                    ifindex: 2,
                },
            )]),
            ..Record::default()
        }
    }

    #[test]
    fn a_successor_knows_what_was_and_how_long_ago() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock.vrrp");
        let mut memory = Memory::open(&socket);
        assert_eq!(memory.legacy("boot", 10), Legacy::default());
        memory.save(&record("boot"));
        memory.note_alive(5_000_000);
        let successor = Memory::open(&socket);
        let legacy = successor.legacy("boot", 5_300_000);
        assert_eq!(legacy.record, record("boot"));
        assert_eq!(legacy.age_us, Some(300_000));
        // A stamp of the future is none.
        assert_eq!(successor.legacy("boot", 4_000_000).age_us, None);
        memory.remove();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_could_not_be_written_is_written_when_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let (here, away) = (directory.path().join("run"), directory.path().join("away"));
        std::fs::create_dir(&here).unwrap();
        let mut memory = Memory::open(&here.join("s"));
        std::fs::rename(&here, &away).unwrap();
        memory.save(&record("boot"));
        assert!(memory.is_failing());
        std::fs::rename(&away, &here).unwrap();
        memory.save(&record("boot"));
        assert!(!memory.is_failing());
        assert_eq!(memory.legacy("boot", 1).record, record("boot"));
    }

    #[test]
    fn another_boot_has_left_a_configuration_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(&directory.path().join("s"));
        memory.save(&record("boot"));
        memory.note_alive(5_000_000);
        let legacy = memory.legacy("next", 6_000_000);
        assert_eq!((legacy.age_us, legacy.record.vips.len()), (None, 0));
        assert_eq!(legacy.record.configuration.node, "lb1");
    }

    #[test]
    fn damaged_files_are_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let mut memory = Memory::open(&socket);
        memory.save(&record("boot"));
        std::fs::write(directory.path().join("s.alive"), "123").unwrap();
        assert_eq!(memory.legacy("boot", 6).age_us, None);
        std::fs::write(directory.path().join("s.state"), "{\"boot\":").unwrap();
        assert_eq!(memory.legacy("boot", 6), Legacy::default());
    }
}
