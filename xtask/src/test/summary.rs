//! Counting tests in what libtest prints.

use std::fmt;
use std::process::ExitStatus;

/// The counts of one layer, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    passed: usize,
    failed: usize,
    /// The failed tests' names, and failures that are none of a test.
    failures: Vec<String>,
    /// Skipped tests with the reason, `NAME: REASON`.
    skips: Vec<String>,
}

impl Summary {
    /// A failure that is none of a test.
    pub(super) fn failure(reason: &str) -> Self {
        Self {
            failed: 1,
            failures: vec![reason.to_owned()],
            ..Self::default()
        }
    }

    /// Takes in one line of libtest's output.
    pub(super) fn take_line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(test) = line.strip_prefix("test ") {
            self.take_test(test);
        }
    }

    /// `NAME ... ok`, `NAME ... FAILED`, `NAME ... ignored, REASON`
    fn take_test(&mut self, test: &str) {
        let Some((name, verdict)) = test.rsplit_once(" ... ") else {
            return;
        };
        if verdict == "FAILED" {
            self.failures.push(name.to_owned());
        } else if verdict.starts_with("ignored") {
            let reason = verdict
                .strip_prefix("ignored, ")
                .unwrap_or("no reason given");
            self.skips.push(format!("{name}: ignored: {reason}"));
        }
    }

    /// Takes in the log of tests that skipped themselves. To libtest they have passed.
    pub(super) fn take_skip_log(&mut self, log: &str) {
        for line in log.lines() {
            self.passed = self.passed.saturating_sub(1);
            self.skips.push(line.to_owned());
        }
    }

    /// Adds the failures that no test tells: cargo's own, and that nothing ran.
    pub(super) fn check(&mut self, layer: &str, status: ExitStatus, filter: Option<&str>) {
        if !status.success() && self.failed == 0 {
            self.add(Self::failure(&format!(
                "the {layer} layer ended with {status}"
            )));
        }
        if self.is_empty() && filter.is_none() {
            self.add(Self::failure(&format!("the {layer} layer has no test")));
        }
    }

    /// Adds the counts of another layer.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// Whether no test was there to run.
    pub(super) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skips.len() == 0
    }

    /// Whether anything failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed > 0
    }
}

/// From `ok. 3 passed; 0 failed; 1 ignored; …`, the number before `word`.
fn count(counts: &str, word: &str) -> usize {
    counts
        .split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

impl fmt::Display for Summary {
    /// The failed and the skipped tests by name, and the line that programs read, which is the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, names) in [("failed", &self.failures), ("skipped", &self.skips)] {
            if !names.is_empty() {
                writeln!(f, "{title}:")?;
            }
            for name in names {
                writeln!(f, "  {name}")?;
            }
        }
        let (passed, failed, skipped) = (self.passed, self.failed, self.skips.len());
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test maglev::balance ... ok
test config::caret ... FAILED
test bench::slow ... ignored, takes an hour
test nat::checksum ... ok

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s";

    fn summary(output: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.take_line(line));
        summary
    }

    #[test]
    fn counts_of_several_binaries_are_summed_and_skips_are_not_passes() {
        let mut summary = summary(OUTPUT);
        summary.take_skip_log("dsr_v4: missing nginx\n");
        assert_eq!(
            summary.to_string(),
            "failed:\n  config::caret\nskipped:\n  bench::slow: ignored: takes an hour\n  \
             dsr_v4: missing nginx\n4 passed, 1 failed, 2 skipped\n"
        );
        assert!(summary.has_failed());
    }

    #[test]
    fn layer_without_tests_fails_unless_a_filter_left_none() {
        let (success, crash) = (ExitStatus::from_raw(0), ExitStatus::from_raw(11));
        let mut unfiltered = Summary::default();
        unfiltered.check("e2e", success, None);
        assert_eq!(unfiltered, Summary::failure("the e2e layer has no test"));
        let mut filtered = Summary::default();
        filtered.check("e2e", success, Some("drain"));
        assert!(!filtered.has_failed());
        filtered.check("e2e", crash, Some("drain"));
        assert!(filtered.has_failed());
    }

    #[test]
    fn summary_line_stands_alone() {
        assert_eq!(summary("").to_string(), "0 passed, 0 failed, 0 skipped\n");
    }
}
