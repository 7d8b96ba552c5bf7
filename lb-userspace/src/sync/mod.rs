//! The link between the nodes of a cluster: what they tell each other, and how.

pub mod flow;
