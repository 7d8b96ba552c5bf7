//! Histories that failed once, shrunk: each has shown a hole that is closed now.

use anyhow::{Context as _, Result};

use crate::plan::Case;

const LIST: &str = include_str!("regressions.txt");

/// All of them.
///
/// # Errors
/// A line of the list that cannot be read.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let lines = LIST
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            line.parse()
                .with_context(|| format!("regressions.txt: {line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use crate::runner;

    #[test]
    fn what_failed_once_holds_now() {
        for case in cases().unwrap() {
            let outcome = runner::run(&case.plan(), &Rules::default());
            assert!(!outcome.has_failed(), "{case}\n{:#?}", outcome.failures());
        }
    }
}
