//! How a ring changes without breaking a flow: the life of each slot of a hash-scheduled TCP service.
//!
//! [`RingTransition`] is a machine without clock and without I/O. The time and what is observed go in,
//! the content of the ring and what has to be done next come out; the engine and the simulator drive the
//! same one. [`sweep`] is the walk over the flow table that tells the machine when nothing is left to
//! remember, as pure as the machine.
//!
//! ```text
//!            a change is wanted        PREPARE_MS after the armed ring is in force
//!  settled ───────────────────▶ armed ───────────────────────────────────────────▶ moving
//!   {c,0}                       {c,c} ◀──────────────────────────────────────────  {d,c}
//!     ▲                         ▲   │   the change is taken back: current = previous  │
//!     │                a change │   │ no change                                       │ an idle time-out
//!     │               is wanted │   │ is pending                                      │ after the last
//!     │                         │   ▼                                                 │ change and the
//!     └──────────────────────── quiet ◀───────────────────────────────────────────────┘ last suppressed
//!   a sweep purged the slot    {d,d,quiet}                                             flow
//!   and found no exception
//! ```
//!
//! In company ([`Company`]) a ring is in force when every peer that is present has acknowledged it, a moving slot
//! becomes armed again before it becomes quiet, and a slot settles when nothing of it is left in any node's flow
//! table. While a peer cannot be asked, planned changes wait and nothing settles.
//!
//! A change that is urgent (the backend died, or the operator said `--strict`) goes from settled, armed or
//! quiet to moving in one step. A moving slot changes its current at once, and never its previous.

mod company;
#[cfg(test)]
mod company_tests;
mod machine;
mod phase;
mod survey;
pub mod sweep;
mod terms;
#[cfg(test)]
mod tests;

pub use machine::RingTransition;
pub use phase::Phase;
pub use terms::{
    Company, Facts, Lead, Members, Reach, RingLengthChanged, Settling, Step, Summary, Timing,
};
