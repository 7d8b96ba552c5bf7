//! A test for each rule of rings that several nodes have.
