//! FastCGI: one request to a responder, without a web server between.
//!
//! The request is what a web server would send for `GET path`. php-fpm answers its `ping.path` and
//! `pm.status_path` by themselves, also while all of its workers are busy for longer than `listen.backlog`
//! allows: then it does not answer, and that is what is to be found out.

mod record;
#[cfg(test)]
mod tests;

use tokio::io::{AsyncWriteExt, BufReader};

use self::record::{Kind, request};
use super::Target;
use super::connect::{self, AnyStream};
use super::http::check_status;
use super::text::{Text, quote, quote_up_to};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::FastcgiCheck;

/// What is kept of the answer, headers included; what comes after it is not waited for. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where the headers have to end. Unit: bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What a reason tells of the words on the error channel: PHP begins with "PHP message: PHP Fatal error:
/// Uncaught RuntimeException: " and comes to the point then. Unit: bytes.
const ERROR_TOLD_BYTES_MAX: usize = 140;

/// What is kept of them. Unit: bytes.
const ERROR_BYTES_MAX: usize = 512;

/// Asks for the path; the status decides, and the body if a text is wanted in it.
pub(super) async fn fastcgi(
    check: &FastcgiCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut stream = connect::open(target, observed).await?;
    let request = request(&check.path, target.address)?;
    let sent = async {
        stream.write_all(&request).await?;
        stream.flush().await
    };
    sent.await
        .map_err(|error| connect::broken(&error, "sending the request"))?;
    let answer = Answer::read(&mut BufReader::with_capacity(4096, stream)).await?;
    answer.judge(check)
}

/// What came until the end of the request, or the bound.
#[derive(Debug, Default)]
struct Answer {
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Answer {
    async fn read(stream: &mut BufReader<AnyStream>) -> Result<Self, Failure> {
        let mut answer = Self::default();
        loop {
            let record = record::read(stream).await?;
            match record.kind {
                Kind::Output => answer.output.extend(record.content),
                Kind::Error => answer.errors.extend(record.content),
                Kind::End => {
                    record::check_end(&record.content)?;
                    return Ok(answer);
                }
            }
            answer.errors.truncate(ERROR_BYTES_MAX);
            if answer.output.len() >= ANSWER_BYTES_MAX {
                answer.output.truncate(ANSWER_BYTES_MAX);
                return Ok(answer);
            }
        }
    }

    fn judge(&self, check: &FastcgiCheck) -> Result<(), Failure> {
        let (status, body) = self.parts()?;
        check_status(status, &check.status).map_err(|failure| self.with_errors(failure))?;
        if Text::new(&check.body, ANSWER_BYTES_MAX).push(body) {
            return Ok(());
        }
        let wanted = quote(&check.body);
        let said = quote(body);
        Err(self.with_errors(Failure::new(
            FailureKind::Unexpected,
            format_args!("no {wanted} in the body, which begins with {said}"),
        )))
    }

    /// The status, 200 unless there is a header that says otherwise (RFC 3875 section 6.3.3), and the body.
    fn parts(&self) -> Result<(u16, &[u8]), Failure> {
        let end = self.head_end().ok_or_else(|| {
            self.with_errors(Failure::new(
                FailureKind::Protocol,
                format_args!(
                    "an answer without an end of its headers: {}",
                    quote(&self.output)
                ),
            ))
        })?;
        let (head, body) = self.output.split_at(end);
        let status = String::from_utf8_lossy(head)
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("status"))
            .map_or(Some(200), |(_, value)| {
                value.trim_start().get(..3)?.parse().ok()
            });
        let status = status.ok_or_else(|| {
            Failure::new(FailureKind::Protocol, "a Status header that is no number")
        })?;
        Ok((status, body))
    }

    /// Behind the first empty line; CR LF and LF both end a line.
    fn head_end(&self) -> Option<usize> {
        let head = &self.output[..self.output.len().min(HEAD_BYTES_MAX)];
        let mut line_length = 0;
        for (at, byte) in head.iter().enumerate() {
            match byte {
                b'\n' if line_length == 0 => return Some(at + 1),
                b'\n' => line_length = 0,
                b'\r' => {}
                _ => line_length += 1,
            }
        }
        None
    }

    fn with_errors(&self, failure: Failure) -> Failure {
        match self.errors.as_slice() {
            [] => failure,
            errors => Failure::new(
                failure.kind,
                format_args!(
                    "{failure}; it says {}",
                    quote_up_to(errors, ERROR_TOLD_BYTES_MAX)
                ),
            ),
        }
    }
}
