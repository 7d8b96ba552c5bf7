//! Rings on the wire.
