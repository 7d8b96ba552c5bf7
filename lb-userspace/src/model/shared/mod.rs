//! Changes made at run time, shared by the nodes of a cluster.
//!
//! Each node has a config file of its own. What `lbctl` changes is kept beside it: for each object that was
//! touched (a service, a backend, a backend's admin state, the health that somebody has told) the last [`Word`] and
//! its [`Stamp`]. Nodes send each other such entries, in any order, as often as they like: of two words about
//! an object the one with the later stamp holds, so all nodes that have heard the same end up with the same. A reload
//! of a file takes back what was changed of services and backends, on all nodes: [`Word::FromFile`].
//!
//! The file's model with the words laid over it is what a node puts in force: [`Overlay::model`]. A service whose
//! changes break a rule here is left as the file has it, and that is told; nothing is half applied.
//!
//! No I/O: time goes in as numbers.

mod drift;
mod entry;
mod lay;
mod note;
mod overlay;
mod stamp;
mod value;

#[cfg(test)]
mod tests;

pub use drift::Outline;
pub use entry::{Entry, Key, Word};
pub use lay::Laid;
pub use overlay::{ENTRIES_MAX, Merged, Overlay};
pub use stamp::{AHEAD_MAX_MS, Stamp};
