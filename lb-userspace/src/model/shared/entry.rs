//! What is said about an object.

use std::fmt;

use lb_common::limits::NAME_LEN_MAX;
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;

/// Longest value: a service without its backends takes some hundred bytes. Unit: bytes.
pub(super) const VALUE_BYTES_MAX: usize = 4 * 1024;

/// An object that can be changed at run time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A service without its backends, by name.
    Service(String),
    /// A backend's settings: service, name.
    Backend(String, String),
    /// What the operator has decided about a backend: service, name.
    Admin(String, String),
    /// What somebody has said of a backend that nobody checks: service, name.
    Health(String, String),
}

/// What was last said about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Word {
    /// What each node's own file says. It takes back what was said before.
    FromFile,
    /// It is not there, whatever the file says.
    Removed,
    /// It is so: JSON, in the form that its kind of object has.
    Is(String),
}

/// A word about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The object.
    pub key: Key,
    /// When it was said, and where.
    pub stamp: Stamp,
    /// What.
    pub word: Word,
}

impl Key {
    /// The service that it belongs to.
    pub fn service(&self) -> &str {
        match self {
            Self::Service(service)
            | Self::Backend(service, _)
            | Self::Admin(service, _)
            | Self::Health(service, _) => service,
        }
    }

    fn backend(&self) -> Option<&str> {
        match self {
            Self::Service(_) => None,
            Self::Backend(_, name) | Self::Admin(_, name) | Self::Health(_, name) => Some(name),
        }
    }
}

/// ``service `web`, backend `web1` ``.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}`", self.service())?;
        if let Some(backend) = self.backend() {
            write!(f, ", backend `{backend}`")?;
        }
        match self {
            Self::Admin(..) => f.write_str(", admin state"),
            Self::Health(..) => f.write_str(", health"),
            Self::Service(_) | Self::Backend(..) => Ok(()),
        }
    }
}

impl Entry {
    /// Why it is no entry that a node of ours could have sent; `None` = it is one.
    pub(super) fn fault(&self) -> Option<String> {
        let names = [Some(self.key.service()), self.key.backend()];
        let names = names.into_iter().flatten().chain([&*self.stamp.node]);
        let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_LEN_MAX;
        if !names.into_iter().all(is_name) {
            return Some("a name of no or too many bytes".to_owned());
        }
        match &self.word {
            Word::Is(value) if value.len() > VALUE_BYTES_MAX => Some(format!(
                "a value of {} bytes, and there can be {VALUE_BYTES_MAX}",
                value.len()
            )),
            Word::Is(_) | Word::FromFile | Word::Removed => None,
        }
    }
}
