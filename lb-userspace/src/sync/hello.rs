//! What nodes say to each other in clear before their handshake: which protocol, and who. Both hellos go into
//! the handshake, which fails if anybody has changed them.

use std::collections::BTreeSet;
use std::fmt;

/// The first bytes of every hello.
const MAGIC: [u8; 4] = *b"LBPL";
/// Before the name: the magic, the version, the name's length. Unit: bytes.
const FIXED_BYTES: usize = MAGIC.len() + 2 + 2 + 1;
/// The longest hello that is read: of a later minor version, it may be longer than ours. Unit: bytes.
pub const HELLO_MAX_BYTES: usize = 1024;
/// The longest node name. Unit: bytes.
pub const NODE_NAME_MAX_BYTES: usize = 255;

/// The version of what is spoken on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Nodes of different ones cannot talk.
    pub major: u16,
    /// What the later one has more, it does not say to the earlier one.
    pub minor: u16,
}

/// What this program speaks.
pub const VERSION: Version = Version { major: 1, minor: 0 };

impl Version {
    /// What two nodes speak with each other: the lower minor version. `None` if their major versions differ.
    pub fn agree(self, other: Self) -> Option<Self> {
        (self.major == other.major).then_some(self.min(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Who speaks, and which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's version.
    pub version: Version,
    /// The sender's name.
    pub node: String,
}

/// Why a node does not talk to another. Each text says what to do, and follows the peer's name or address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks something else.
    #[error(
        "what is there does not speak the peer link's protocol: is it the address of a node's [cluster] listen?"
    )]
    NotOurs,
    /// It speaks another major version.
    #[error(
        "it speaks version {theirs} of the peer link, this node {ours}: upgrade the one with the lower major version"
    )]
    Version {
        /// Of this node.
        ours: Version,
        /// Of the other.
        theirs: Version,
    },
    /// It has another name than the config expects at this place.
    #[error(
        "the node calls itself {found:?}, and [[cluster.peer]] expects {expected}: compare it with that node's \
         [node] name"
    )]
    Name {
        /// What it calls itself.
        found: String,
        /// Who may be there, in words.
        expected: String,
    },
    /// It cannot know the secret.
    #[error(
        "it has another secret: [cluster] secret_file must have the same content on every node"
    )]
    Secret,
    /// It says something that nobody says who follows the protocol.
    #[error("it breaks the peer link's protocol: {0}")]
    Malformed(&'static str),
    /// It refuses this node. Anybody could have said so: it is a hint.
    #[error("it refuses this node: {0}")]
    Said(String),
}

impl Hello {
    /// The hello of this program on a node.
    pub fn of(node: &str) -> Self {
        Self {
            version: VERSION,
            node: node.to_owned(),
        }
    }

    /// Its bytes, numbers in network byte order. A name that is too long is cut.
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = &self.node.as_bytes()[..self.node.len().min(NODE_NAME_MAX_BYTES)];
        let mut bytes = Vec::with_capacity(FIXED_BYTES + name.len());
        bytes.extend(MAGIC);
        bytes.extend(self.version.major.to_be_bytes());
        bytes.extend(self.version.minor.to_be_bytes());
        bytes.push(name.len() as u8);
        bytes.extend(name);
        bytes
    }

    /// Reads a hello. What follows the name is a later version's.
    ///
    /// # Errors
    /// [`Refusal::NotOurs`] and [`Refusal::Malformed`]; of another major version, nothing but that is known:
    /// [`Refusal::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(Refusal::NotOurs);
        };
        if *magic != MAGIC {
            return Err(Refusal::NotOurs);
        }
        let short = Refusal::Malformed("its hello is too short");
        let (major, rest) = rest.split_first_chunk::<2>().ok_or(short.clone())?;
        let (minor, rest) = rest.split_first_chunk::<2>().ok_or(short.clone())?;
        let version = Version {
            major: u16::from_be_bytes(*major),
            minor: u16::from_be_bytes(*minor),
        };
        if version.agree(VERSION).is_none() {
            return Err(Refusal::Version {
                ours: VERSION,
                theirs: version,
            });
        }
        let (name_bytes, rest) = rest.split_first().ok_or(short.clone())?;
        let name = rest.get(..usize::from(*name_bytes)).ok_or(short)?;
        let node = str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty() && !name.chars().any(char::is_control))
            .ok_or(Refusal::Malformed("its name is not printable"))?;
        Ok(Self {
            version,
            node: node.to_owned(),
        })
    }

    /// Whether the node is one of those that may be there.
    ///
    /// # Errors
    /// [`Refusal::Name`].
    pub fn check_name(&self, expected: &BTreeSet<String>) -> Result<(), Refusal> {
        if expected.contains(&self.node) {
            return Ok(());
        }
        let names: Vec<&str> = expected.iter().map(String::as_str).collect();
        Err(Refusal::Name {
            found: self.node.clone(),
            expected: if names.is_empty() {
                "nobody who calls".to_owned()
            } else {
                names.join(" or ")
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_as_it_was_written_also_with_something_behind_it() {
        let hello = Hello::of("lb1");
        let mut bytes = hello.to_bytes();
        assert_eq!(Hello::parse(&bytes), Ok(hello.clone()));
        bytes.extend(b"of a later minor version");
        assert_eq!(Hello::parse(&bytes), Ok(hello));
    }

    #[test]
    fn a_truncated_hello_is_refused_at_every_length() {
        let bytes = Hello::of("lb1").to_bytes();
        for len in 0..bytes.len() {
            assert!(Hello::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn another_major_version_is_refused_whatever_follows_and_another_minor_one_is_not() {
        let mut bytes = Hello::of("lb1").to_bytes();
        bytes[7] = 9;
        let later = Hello::parse(&bytes).expect("another minor version");
        assert_eq!(later.version.agree(VERSION), Some(VERSION));
        bytes[5] = 2;
        bytes.truncate(8);
        let refusal = Hello::parse(&bytes).expect_err("another major version");
        assert!(refusal.to_string().contains("2.9"), "{refusal}");
    }

    #[test]
    fn a_name_that_would_garble_a_terminal_is_refused() {
        let hello = Hello::of("lb\u{1b}[2J");
        assert!(matches!(
            Hello::parse(&hello.to_bytes()),
            Err(Refusal::Malformed(_))
        ));
    }

    #[test]
    fn a_node_that_is_not_expected_is_told_who_is() {
        let expected = BTreeSet::from(["lb2".to_owned()]);
        let refusal = Hello::of("lb3").check_name(&expected).expect_err("lb3");
        let text = refusal.to_string();
        assert!(text.contains("lb3") && text.contains("lb2"), "{text}");
        assert!(Hello::of("lb2").check_name(&expected).is_ok());
    }
}
