//! Backends' lives on real parts: drain, maintenance, removal, health, backups, weights, slow start; and what
//! lbctl says of flows, rings and changes to come.

#[path = "e2e_lives/drain.rs"]
mod drain;
#[path = "e2e_lives/ends.rs"]
mod ends;
#[path = "e2e_lives/health.rs"]
mod health;
#[path = "e2e_lives/spread.rs"]
mod spread;
#[path = "e2e_lives/stage.rs"]
mod stage;
#[path = "e2e_lives/state.rs"]
mod state;
#[path = "e2e_lives/udp.rs"]
mod udp;
#[path = "e2e_lives/views.rs"]
mod views;
