//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at the condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` again and again until it has a value. `what` names what is waited for, in the
/// error. An error of `probe` ends the waiting.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    wait_until_every(POLL_INTERVAL, what, timeout, probe)
}

/// As [`wait_until`], with another pause between two looks, where looking takes the machine some work.
pub fn wait_until_every<T>(
    pause: Duration,
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if started.elapsed() >= timeout {
            bail!("waited {} ms in vain for {what}", timeout.as_millis());
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_ends_the_waiting_and_the_timeout_names_what_was_waited_for() {
        let mut looks = 0;
        let value = wait_until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.unwrap(), 3);
        let error = wait_until("nothing", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 ms in vain for nothing");
    }
}
