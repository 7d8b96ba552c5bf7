//! The one task that owns the model and writes the maps.

mod handle;
pub mod snapshot;

pub use handle::{EngineError, EngineHandle, Outcome, Request};
