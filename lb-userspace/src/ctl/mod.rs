//! The client: what `lbctl` does with its words.
