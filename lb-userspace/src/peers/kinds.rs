//! What the frames are between two daemons.

use crate::sync::kind::FREE_MIN;

/// About rings: [`crate::cluster::message::Message`].
pub const RINGS: u16 = FREE_MIN;
/// The sender takes its datapath off: nothing is forwarded there from now on. Without content.
pub const DETACHED: u16 = FREE_MIN + 1;
/// About changes made at run time.
pub const CHANGES: u16 = FREE_MIN + 2;
/// The sender's flow hash key, 32 bytes: the first frame of a session.
pub const HASH_KEY: u16 = FREE_MIN + 3;
