use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// The owner and the group may ask.
const SOCKET_MODE: u32 = 0o660;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process holds it.
    #[error("{}: lbd is running already{owner}; stop it, or give this one another --socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
        /// ` (pid N)`, where known.
        owner: String,
    },
    /// Something else is in its place.
    #[error("{} is no socket: remove it, or give another --socket", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The API's socket: bound, mode 0660, and ours alone. Its files go when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    _lock: Lock,
}

impl Socket {
    /// Binds the socket at `path`; makes its directory (0755) if it is missing, and replaces a socket
    /// that nobody listens on.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        make_directory(path)?;
        let lock = Lock::take(path)?;
        remove_stale(path)?;
        let listener = bind_0660(path).map_err(failed("listen on", path))?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            _lock: lock,
        })
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listener for whoever has no runtime; it does not wait.
    ///
    /// # Errors
    /// If the system gives no descriptor.
    pub fn blocking_listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// A listener for the runtime; must be called within one.
    ///
    /// # Errors
    /// The runtime cannot poll it.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock is dropped after this, so the file can only be ours.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn make_directory(socket: &Path) -> Result<(), SocketError> {
    let Some(directory) = socket
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(directory);
    made.map_err(failed("make the directory", directory))
}

/// On Linux a socket's file takes its mode from the descriptor (`unix_bind`), so there is no moment
/// at which others could connect; the umask may have taken more away, which is given back after.
fn bind_0660(path: &Path) -> io::Result<UnixListener> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// Removes a socket that nobody listens on. With the lock held, a listener is no lbd of ours.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("look at", path))?,
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(SocketError::Occupied { path });
    }
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(&path).map_err(failed("remove the stale socket", &path))
        }
        // It answers, or says that we may not ask: somebody is there.
        Ok(_) | Err(_) => Err(SocketError::InUse {
            path,
            owner: String::new(),
        }),
    }
}

/// A locked file beside the socket, which holds our process id. The kernel releases the lock however
/// the process ends.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, SocketError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = open(&path).map_err(failed("open the lock file", &path))?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(SocketError::InUse {
                        path: socket.to_owned(),
                        owner: owner(&mut file),
                    });
                }
                Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
            };
            // Its owner may have removed the file between our opening and locking it.
            if is_same_file(&file, &path) {
                let written = file
                    .set_len(0)
                    .and_then(|()| write!(file, "{}", std::process::id()));
                written.map_err(failed("write", &path))?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still locked: see `is_same_file` above.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

/// ` (pid N)` from a lock file.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text).map(|_| text.parse::<u32>()) {
        Ok(Ok(pid)) => format!(" (pid {pid})"),
        // Between locking the file and writing to it.
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_made_and_the_files_go_with_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/lbd/lbd.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_second_one_is_refused_and_told_by_whom() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        let first = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        let pid = format!("(pid {})", std::process::id());
        assert!(
            error.contains("lbd is running already") && error.contains(&pid),
            "{error}"
        );
        drop(first);
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_foreign_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        let foreign = UnixListener::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        drop(foreign);
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn a_plain_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
