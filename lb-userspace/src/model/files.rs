//! Files that the configuration names: whether they are what they have to be. Like [`super::text`], for
//! whoever reads what was written.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::check::Trust;
use super::text::TextError;

/// Where Debian's package ca-certificates keeps the authorities of the system.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Largest file of authorities that is read; the system's has about 230 KB. Unit: bytes.
const AUTHORITIES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Largest password file that is read: a line. Unit: bytes.
pub const PASSWORD_BYTES_MAX: u64 = 4 * 1024;

/// Shortest secret of a cluster: as long as the keys that are derived from it. Unit: bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// Largest file with a secret that is read. Unit: bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;

/// Different bytes in a secret. Of 32 random bytes, or 44 characters of their base64, far more are.
const SECRET_DIFFERENT_MIN: usize = 10;

/// Reads a regular file of at most `bytes_max` bytes. A FIFO that nobody writes to is not waited for.
///
/// # Errors
/// Why it cannot be read; a file that is no regular one, or larger, is refused too.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut content = Vec::new();
    // What the file grows by meanwhile is not in its length.
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it is larger than {bytes_max} bytes, which is as much as is read"
        )));
    }
    Ok(content)
}

fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file"))
}

/// The authorities in a PEM file.
///
/// # Errors
/// It cannot be read, or holds no certificate that could be an authority's.
pub fn authorities(path: &str) -> Result<Trust, TextError> {
    absolute("ca_file", path)?;
    let content = read_bounded(Path::new(path), AUTHORITIES_BYTES_MAX);
    let pem = content.map_err(|error| unreadable("ca_file", path, &error))?;
    if authority_count(&pem) == 0 {
        return Err(TextError {
            message: format!("ca_file {path} holds no certificate"),
            help: "it has to be PEM: -----BEGIN CERTIFICATE----- and what follows".to_owned(),
        });
    }
    Ok(Trust::Authorities {
        file: path.into(),
        pem: shared(pem),
    })
}

/// The content, once for all who hold the same: a thousand checks may name the system's authorities.
fn shared(content: Vec<u8>) -> Arc<[u8]> {
    static HELD: Mutex<Vec<Weak<[u8]>>> = Mutex::new(Vec::new());
    // Nobody panics while holding it.
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|one| one.strong_count() > 0);
    let mut known = held.iter().filter_map(Weak::upgrade);
    if let Some(same) = known.find(|one| **one == *content) {
        return same;
    }
    let new: Arc<[u8]> = Arc::from(content);
    held.push(Arc::downgrade(&new));
    new
}

/// The authorities of the system, [`SYSTEM_AUTHORITIES`].
///
/// # Errors
/// As [`authorities`].
pub fn system_authorities() -> Result<Trust, TextError> {
    authorities(SYSTEM_AUTHORITIES).map_err(|error| TextError {
        help: "install the package ca-certificates, or name a ca_file".to_owned(),
        ..error
    })
}

fn authority_count(pem: &[u8]) -> usize {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let mut store = RootCertStore::empty();
    let (added_count, _) = store.add_parsable_certificates(certificates);
    added_count
}

/// A file with a password in its first line.
///
/// # Errors
/// It cannot be read, or the line is empty.
pub fn password_file(path: &str) -> Result<String, TextError> {
    absolute("password_file", path)?;
    let content = read_bounded(Path::new(path), PASSWORD_BYTES_MAX);
    let content = content.map_err(|error| unreadable("password_file", path, &error))?;
    if content.split(|byte| *byte == b'\n').next() == Some(b"") {
        return Err(TextError {
            message: format!("password_file {path} has nothing in its first line"),
            help: "write the password there; leave password_file out if there is none".to_owned(),
        });
    }
    Ok(path.to_owned())
}

/// A file with the secret that the nodes of a cluster share: at least [`SECRET_BYTES_MIN`] bytes, a newline at the
/// end included, that nobody but the file's owner can read or write.
///
/// # Errors
/// It cannot be read, is too short or too plain for a secret, or others can read it.
pub fn secret_file(path: &str) -> Result<String, TextError> {
    let key = "secret_file";
    absolute(key, path)?;
    let fault = |message: String| TextError {
        message: format!("{key} {path} {message}"),
        help: format!(
            "this makes one, for you to copy to every node: (umask 077; head -c 32 /dev/urandom | base64 >{path})"
        ),
    };
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fault("does not exist".to_owned()),
        _ => unreadable(key, path, &error),
    })?;
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(TextError {
            message: format!(
                "{key} {path} has mode {mode:03o}: others than its owner can get at it"
            ),
            help: format!("chmod 600 {path}; if others may have read it, make a new one"),
        });
    }
    let (owner, user) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != 0 && owner != user {
        return Err(TextError {
            message: format!("{key} {path} belongs to user {owner}, who can read it"),
            help: format!("give it to the user that lbd runs as: chown {user} {path}"),
        });
    }
    let content = read_bounded(Path::new(path), SECRET_BYTES_MAX);
    let content = content.map_err(|error| unreadable(key, path, &error))?;
    if content.len() < SECRET_BYTES_MIN {
        let count = content.len();
        return Err(fault(format!(
            "has {count} bytes, and a secret has at least {SECRET_BYTES_MIN}"
        )));
    }
    let different: BTreeSet<u8> = content.into_iter().collect();
    if different.len() < SECRET_DIFFERENT_MIN {
        let count = different.len();
        return Err(fault(format!(
            "holds no more than {count} different bytes: that is easily guessed"
        )));
    }
    Ok(path.to_owned())
}

/// Whether a file can be read by every user of this machine.
pub fn is_world_readable(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

/// A program that can be run.
///
/// # Errors
/// It is not there, is no file, or is not executable.
pub fn program(key: &str, path: &str) -> Result<(), TextError> {
    absolute(key, path)?;
    let fault = match std::fs::metadata(path) {
        Err(error) => return Err(unreadable(key, path, &error)),
        Ok(metadata) if !metadata.is_file() => "is no file",
        Ok(metadata) if metadata.mode() & 0o111 == 0 => "is not executable",
        Ok(_) => return Ok(()),
    };
    Err(TextError {
        message: format!("{key} {path} {fault}"),
        help: "name a program: no shell is in between".to_owned(),
    })
}

fn absolute(key: &str, path: &str) -> Result<(), TextError> {
    if Path::new(path).is_absolute() && !path.contains('\0') {
        return Ok(());
    }
    Err(TextError {
        message: format!("{key} {path:?} is no absolute path"),
        help: "begin it with a slash: lbd may be started in any directory".to_owned(),
    })
}

fn unreadable(key: &str, path: &str, error: &io::Error) -> TextError {
    TextError {
        message: format!("cannot read {key} {path}: {error}"),
        help: "lbd must be able to read it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, TextError>) -> String {
        result.unwrap_err().message
    }

    fn in_file(content: &[u8]) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        (directory, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn authorities_are_one_certificate_or_more() {
        let own = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
        let pem = own.cert.pem();
        let (_directory, path) = in_file(pem.as_bytes());
        let expected = Trust::Authorities {
            file: path.clone().into(),
            pem: Arc::from(pem.as_bytes()),
        };
        assert_eq!(authorities(&path), Ok(expected));
        let pems = [authorities(&path), authorities(&path)].map(|one| match one {
            Ok(Trust::Authorities { pem, .. }) => pem,
            other => panic!("{other:?}"),
        });
        assert!(Arc::ptr_eq(&pems[0], &pems[1]), "one copy");
        let key = own.signing_key.serialize_pem();
        for content in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
        ] {
            let (_directory, path) = in_file(content.as_bytes());
            assert!(message(authorities(&path)).ends_with("holds no certificate"));
        }
    }

    #[test]
    fn what_is_no_readable_file_is_named() {
        assert_eq!(
            message(authorities("/nowhere/ca.pem")),
            "cannot read ca_file /nowhere/ca.pem: No such file or directory (os error 2)"
        );
        assert!(message(authorities("/dev/zero")).ends_with("it is no regular file"));
        assert_eq!(
            message(authorities("ca.pem")),
            "ca_file \"ca.pem\" is no absolute path"
        );
        assert!(message(password_file("/nowhere/pw")).starts_with("cannot read password_file /no"));
        let (_directory, path) = in_file(&vec![b'x'; 4_097]);
        assert!(message(password_file(&path)).contains("larger than 4096 bytes"));
        let (_directory, path) = in_file(b"\nsecret\n");
        assert!(message(password_file(&path)).ends_with("has nothing in its first line"));
    }

    #[test]
    fn a_password_for_everybody_is_told_from_one_for_root() {
        let (_directory, path) = in_file(b"secret\n");
        assert_eq!(password_file(&path), Ok(path.clone()));
        for (mode, is_readable) in [(0o600, false), (0o640, false), (0o644, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
            assert_eq!(is_world_readable(&path), is_readable, "{mode:o}");
        }
    }

    #[test]
    fn a_program_is_an_executable_file() {
        assert_eq!(program("command", "/bin/true"), Ok(()));
        assert_eq!(
            message(program("command", "/etc/passwd")),
            "command /etc/passwd is not executable"
        );
        assert_eq!(
            message(program("command", "/bin")),
            "command /bin is no file"
        );
        assert!(message(program("command", "true")).contains("no absolute path"));
        assert!(
            message(program("command", "/nowhere"))
                .starts_with("cannot read command /nowhere: No such")
        );
    }
}
