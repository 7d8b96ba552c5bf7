//! Whether a connection is accepted, and what is said over it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Target;
use super::connect::{self, AnyStream};
use super::text::{Text, quote};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::ExchangeCheck;

/// Where the expected bytes have to be. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Connects; sends, if there is something to be sent; and reads until the answer holds what is expected,
/// if something is.
///
/// # Errors
/// [`Failure`].
pub(super) async fn tcp(
    check: &ExchangeCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut stream = connect::open(target, observed).await?;
    // An answer that came in spite of it counts: a server may speak and hang up before it is asked.
    let sent = stream.write_all(check.send.as_bytes()).await;
    if !check.expect.is_empty() {
        return answered(&mut stream, &check.expect, observed).await;
    }
    sent.map_err(|error| connect::broken(&error, "sending"))
}

async fn answered(
    stream: &mut AnyStream,
    expect: &str,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut text = Text::new(expect, ANSWER_BYTES_MAX);
    let mut buffer = [0; ANSWER_BYTES_MAX];
    while !text.is_full() {
        let read = stream.read(&mut buffer).await;
        let count = read.map_err(|error| connect::broken(&error, "reading the answer"))?;
        if count == 0 {
            break;
        }
        if text.push(&buffer[..count]) {
            return Ok(());
        }
        observed.doing = format!("answer {} without {}", quote(text.seen()), quote(expect)).into();
    }
    Err(lacking(&text, expect))
}

fn lacking(text: &Text<'_>, expect: &str) -> Failure {
    if text.seen().is_empty() {
        return Failure::new(
            FailureKind::Closed,
            "closed by the server without an answer",
        );
    }
    Failure::new(
        FailureKind::Unexpected,
        format_args!(
            "answer {} in place of {}",
            quote(text.seen()),
            quote(expect)
        ),
    )
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
