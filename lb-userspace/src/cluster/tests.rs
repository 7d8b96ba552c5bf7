//! The coordinators of several nodes with each other.
