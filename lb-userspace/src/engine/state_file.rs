//! The files of a daemon's own: beside its socket, so that no two daemons share them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

/// What is added to the socket's full name. The name is not shortened first: `y.eth0` and `y.eth1` are
/// the sockets of two daemons.
const SUFFIX: &str = ".vips.json";

/// The same for the services as they were changed at run time.
const SERVICES_SUFFIX: &str = ".services.json";

/// The same for what `lbd-vrrp` leaves to its successor; its socket has a suffix of its own already.
const VRRP_SUFFIX: &str = ".state";

/// The same for the flow hash key that was taken over from a peer.
const HASH_KEY_SUFFIX: &str = ".hash-key";

/// What is added to the file's name while it is being written.
const DRAFT_SUFFIX: &str = ".new";

/// For its owner alone.
const MODE: u32 = 0o600;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// Another user, or something that is no file, is in its place.
    #[error("{} {reason}: remove it, or give lbd another --socket", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateFileError {
    move |source| StateFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A file that is replaced as a whole, and is trusted only if it is ours: what it says is deleted
/// from interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of the daemon behind `socket`.
    pub fn beside(socket: &Path) -> Self {
        Self {
            path: with_suffix(socket, SUFFIX),
        }
    }

    /// The file of the services of the daemon behind `socket`.
    pub fn of_services(socket: &Path) -> Self {
        Self {
            path: with_suffix(socket, SERVICES_SUFFIX),
        }
    }

    /// The file of the `lbd-vrrp` behind `socket`, which is its own, not lbd's.
    pub fn of_vrrp(socket: &Path) -> Self {
        Self {
            path: with_suffix(socket, VRRP_SUFFIX),
        }
    }

    /// The file of the flow hash key that the daemon behind `socket` has taken over from a peer.
    pub fn of_hash_key(socket: &Path) -> Self {
        Self {
            path: with_suffix(socket, HASH_KEY_SUFFIX),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content; `None` if it is not there.
    ///
    /// # Errors
    /// [`StateFileError`]: it is not ours, or cannot be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StateFileError> {
        let Some(mut file) = self.open()? else {
            return Ok(None);
        };
        self.require_ours(&file)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(failed("read", &self.path))?;
        Ok(Some(content))
    }

    /// Replaces its content: after a crash it holds the old or the new one.
    ///
    /// # Errors
    /// [`StateFileError::Io`].
    pub fn write(&self, content: &[u8]) -> Result<(), StateFileError> {
        let draft = self.draft();
        // One that a crash has left, or a link that somebody has laid out: `create_new` follows none.
        remove_if_there(&draft)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&draft)
            .and_then(|mut file| file.write_all(content))
            .map_err(failed("write", &draft))?;
        fs::rename(&draft, &self.path).map_err(failed("replace", &self.path))
    }

    /// Removes the file and its draft, and nothing else.
    ///
    /// # Errors
    /// [`StateFileError::Io`].
    pub fn remove(&self) -> Result<(), StateFileError> {
        remove_if_there(&self.draft())?;
        remove_if_there(&self.path)
    }

    fn draft(&self) -> PathBuf {
        with_suffix(&self.path, DRAFT_SUFFIX)
    }

    fn open(&self) -> Result<Option<File>, StateFileError> {
        // Neither a link that leads elsewhere nor a FIFO that nobody writes to holds us up.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.path);
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
                Err(self.foreign("is a symbolic link".to_owned()))
            }
            Err(error) => Err(failed("open", &self.path)(error)),
        }
    }

    fn require_ours(&self, file: &File) -> Result<(), StateFileError> {
        let metadata = file.metadata().map_err(failed("look at", &self.path))?;
        if !metadata.is_file() {
            return Err(self.foreign("is no regular file".to_owned()));
        }
        let (owner, own) = (metadata.uid(), geteuid().as_raw());
        if owner != own {
            return Err(self.foreign(format!(
                "belongs to user {owner}, and lbd runs as user {own}"
            )));
        }
        Ok(())
    }

    fn foreign(&self, reason: String) -> StateFileError {
        StateFileError::Foreign {
            path: self.path.clone(),
            reason,
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<(), StateFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_whose_sockets_differ_in_the_extension_share_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| StateFile::beside(&directory.path().join(name));
        let (eth0, eth1) = (file("y.eth0"), file("y.eth1"));
        eth0.write(b"0").unwrap();
        eth1.write(b"1").unwrap();
        eth0.remove().unwrap();
        assert_eq!(eth0.read().unwrap(), None);
        assert_eq!(eth1.read().unwrap().as_deref(), Some(b"1".as_slice()));
    }

    #[test]
    fn a_directory_beside_the_socket_and_what_is_in_it_stay() {
        let directory = tempfile::tempdir().unwrap();
        let foreign = directory.path().join("x.state");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("precious"), "").unwrap();
        let file = StateFile::beside(&directory.path().join("x.eth0"));
        file.write(b"{}").unwrap();
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(foreign.join("precious").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        fs::create_dir(file.path()).unwrap();
        fs::write(file.path().join("precious"), "").unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
        file.remove().unwrap_err();
        assert!(file.path().join("precious").exists());
    }

    #[test]
    fn the_content_is_replaced_whatever_a_crash_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("lbd.sock"));
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, file.draft()).unwrap();
        file.write(b"longer").unwrap();
        file.write(b"new").unwrap();
        assert_eq!(file.read().unwrap().as_deref(), Some(b"new".as_slice()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn links_and_files_of_others_are_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("lbd.sock"));
        let target = directory.path().join("target");
        fs::write(&target, "{}").unwrap();
        std::os::unix::fs::symlink(&target, file.path()).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("is a symbolic link"), "{error}");

        file.remove().unwrap();
        file.write(b"{}").unwrap();
        if !geteuid().is_root() {
            // Only root can give a file away, which the rest of this test is about.
            return;
        }
        std::os::unix::fs::chown(file.path(), Some(65_534), None).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(
            error.contains("belongs to user 65534, and lbd runs as user 0"),
            "{error}"
        );
        assert!(error.contains("lbd.sock.vips.json"), "{error}");
    }
}
