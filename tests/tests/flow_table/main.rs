//! Who gets into the flow table, who stays, and for how long: the datapath's own code over tables in
//! memory.

mod admission;
mod concurrent;
mod flood;
mod interleaved;
mod lingering;
mod shared;
mod stage;
