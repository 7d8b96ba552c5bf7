//! The API and `lbctl` over a real unix socket, with an engine that keeps the model in memory.

mod api;
mod events;
mod fake;
mod lbctl;
mod lives;
mod pair;
mod refusals;
