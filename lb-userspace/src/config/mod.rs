//! The config file: text → checked model, every error at once with its place in the file.
//!
//! [`load`] parses the text, reads the spanned tree into a [`Draft`](crate::model::draft::Draft)
//! without stopping at a mistake, lets the rules of the model judge it, and maps each problem
//! back to its place.

mod checks;
mod cluster;
mod load;
mod mask;
mod reader;
mod report;
mod schema;
mod source;
mod spans;
mod validate;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hook_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use load::{Loaded, Overrides, load, parse};
pub use report::{Look, Report};
