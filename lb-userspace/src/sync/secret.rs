//! The secret that all nodes of a cluster share, and the keys that come from it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lb_common::limits::HASH_KEY_WORDS;
use ring::{digest, hkdf};

/// The shortest secret: as long as the keys that are made of it. Unit: bytes.
pub const SECRET_MIN_BYTES: usize = 32;
/// The longest: more is a file of another kind. Unit: bytes.
pub const SECRET_MAX_BYTES: usize = 4096;

/// The length of every key. Unit: bytes.
const KEY_BYTES: usize = 32;
/// Says what the keys are for, so that the same secret used elsewhere gives other keys (RFC 5869 section 3.1).
const SALT: &[u8] = b"lbd cluster secret";
/// Permission bits of others than the owner.
const OTHERS_MODE: u32 = 0o077;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the cluster's secret file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory or a device.
    #[error("the cluster's secret file {} is no regular file", path.display())]
    NoFile {
        /// What it is not.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error(
        "the cluster's secret file {} has mode {mode:04o}: others than its owner have access; `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "the cluster's secret file {} belongs to user {owner}: it must belong to root or to user {user}, as whom \
         this process runs",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who reads it.
        user: u32,
    },
    /// It is too short, or far too long.
    #[error(
        "the cluster's secret{place} has {found_bytes} bytes: {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} are needed; \
         `head -c 32 /dev/urandom` makes one, which all nodes must have"
    )]
    Length {
        /// ` file PATH`, or nothing.
        place: String,
        /// Its length; a longer one counts as one byte over the limit.
        found_bytes: usize,
    },
}

/// The cluster's secret, ready to derive keys from. The bytes of the file count as they are: a line feed at their
/// end, too.
#[derive(Clone)]
pub struct Secret {
    root: hkdf::Prk,
}

impl Secret {
    /// Reads the secret from a file that nobody but its owner can read.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        check_access(path, &file.metadata().map_err(unreadable)?)?;
        let mut bytes = Vec::with_capacity(SECRET_MIN_BYTES);
        file.take(SECRET_MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::checked(&bytes, format!(" file {}", path.display()))
    }

    /// A secret from elsewhere than a file.
    ///
    /// # Errors
    /// [`SecretError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        Self::checked(bytes, String::new())
    }

    fn checked(bytes: &[u8], place: String) -> Result<Self, SecretError> {
        if !(SECRET_MIN_BYTES..=SECRET_MAX_BYTES).contains(&bytes.len()) {
            return Err(SecretError::Length {
                place,
                found_bytes: bytes.len(),
            });
        }
        Ok(Self {
            root: hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(bytes),
        })
    }

    /// The key that authenticates VRRP advertisements.
    pub fn vrrp_key(&self) -> [u8; KEY_BYTES] {
        self.key(b"vrrp key")
    }

    /// The pre-shared key of the peer link's handshake.
    pub fn link_key(&self) -> [u8; KEY_BYTES] {
        self.key(b"link key")
    }

    /// The key of the flow hash, for a datapath that is made anew.
    pub fn flow_hash_key(&self) -> [u64; HASH_KEY_WORDS] {
        let key = self.key(b"flow hash key");
        let (words, _) = key.as_chunks::<8>();
        std::array::from_fn(|index| u64::from_le_bytes(words[index]))
    }

    fn key(&self, purpose: &[u8]) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        self.root
            .expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .expect("HKDF-SHA256 gives 32 bytes: at most 255 times 32 are possible (RFC 5869 section 2.3)");
        key
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

fn check_access(path: &Path, metadata: &std::fs::Metadata) -> Result<(), SecretError> {
    let path = path.to_owned();
    // SAFETY: a system call without arguments that cannot fail.
    let user = unsafe { libc::geteuid() };
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_file() {
        Err(SecretError::NoFile { path })
    } else if mode & OTHERS_MODE != 0 {
        Err(SecretError::Exposed { path, mode })
    } else if owner != 0 && owner != user {
        Err(SecretError::Foreign { path, owner, user })
    } else {
        Ok(())
    }
}

/// What peers compare to learn whether their flow hash keys are equal, without telling the key.
pub fn hash_key_fingerprint(key: &[u64; HASH_KEY_WORDS]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"fingerprint of a flow hash key");
    key.iter()
        .for_each(|word| context.update(&word.to_le_bytes()));
    let digest = context.finish();
    let (words, _) = digest.as_ref().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.key");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
        (directory, path)
    }

    #[test]
    fn keys_differ_by_purpose_and_by_secret_and_are_the_same_on_every_node() {
        let (_directory, path) = file(&[7; 32], 0o600);
        let one = Secret::read(&path).expect("a secret");
        let same = Secret::from_bytes(&[7; 32]).expect("a secret");
        let other = Secret::from_bytes(&[8; 32]).expect("a secret");
        assert_eq!(one.link_key(), same.link_key());
        assert_eq!(one.flow_hash_key(), same.flow_hash_key());
        assert_ne!(one.link_key(), one.vrrp_key());
        assert_ne!(one.link_key(), other.link_key());
        assert_ne!(
            hash_key_fingerprint(&one.flow_hash_key()),
            hash_key_fingerprint(&other.flow_hash_key())
        );
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_way_out() {
        let (_directory, path) = file(&[7; 32], 0o640);
        let error = Secret::read(&path).expect_err("others can read it");
        let text = error.to_string();
        assert!(
            text.contains("0640") && text.contains("chmod 600"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_has_32_to_4096_bytes_and_is_a_file() {
        for len in [0, 31, 4097, 10_000] {
            let (_directory, path) = file(&vec![7; len], 0o400);
            let error = Secret::read(&path).expect_err("a wrong length");
            assert!(matches!(error, SecretError::Length { .. }), "{error}");
        }
        for len in [32, 4096] {
            let (_directory, path) = file(&vec![7; len], 0o400);
            assert!(Secret::read(&path).is_ok());
        }
        let (directory, path) = file(&[], 0o600);
        let error = Secret::read(directory.path()).expect_err("a directory");
        assert!(matches!(error, SecretError::NoFile { .. }), "{error}");
        fs::remove_file(&path).expect("the file");
        let error = Secret::read(&path).expect_err("no file");
        assert!(error.to_string().contains("cluster.key"), "{error}");
    }
}
