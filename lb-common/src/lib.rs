//! Both sides.
#![no_std]
