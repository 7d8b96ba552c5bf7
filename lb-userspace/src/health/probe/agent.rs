//! HAProxy's agent-check: the backend says itself how it is, in one line of words.
//! (<https://docs.haproxy.org/2.8/configuration.html#5.2-agent-check>)

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Target;
use super::connect::{self, AnyStream};
use super::text::quote;
use crate::health::outcome::{AgentWords, Failure, FailureKind, Observed};
use crate::model::AdminState;
use crate::model::check::AgentCheck;

/// The longest line. Unit: bytes.
const LINE_MAX_BYTES: usize = 1024;

/// The largest weight. Unit: per cent.
const WEIGHT_MAX_PERCENT: u16 = 256;

/// Reads the agent's line, after sending what it waits for, if anything.
pub(super) async fn agent(
    check: &AgentCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut stream = connect::open(target, observed).await?;
    // An agent that speaks and hangs up before it was asked has answered all the same.
    let sent = stream.write_all(check.send.as_bytes()).await;
    let line = match read_line(&mut stream).await {
        Ok(line) => line,
        Err(failure) => {
            sent.map_err(|error| connect::broken(&error, "sending"))?;
            return Err(failure);
        }
    };
    let (words, reason) = parse(&line)?;
    let is_up = words.is_up;
    observed.agent = Some(words);
    match is_up {
        Some(false) => Err(Failure::new(
            FailureKind::Unexpected,
            format_args!("the agent says {}", quote(reason)),
        )),
        _ => Ok(()),
    }
}

/// Up to the first line end, or the end of what the agent sends.
async fn read_line(stream: &mut AnyStream) -> Result<String, Failure> {
    let mut line = Vec::with_capacity(128);
    loop {
        if let Some(end) = line.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            line.truncate(end);
            break;
        }
        if line.len() >= LINE_MAX_BYTES {
            return Err(Failure::new(
                FailureKind::Protocol,
                format_args!("no line end in {LINE_MAX_BYTES} bytes"),
            ));
        }
        let mut rest = (&mut *stream).take((LINE_MAX_BYTES - line.len()) as u64);
        match rest.read_buf(&mut line).await {
            Ok(0) if line.is_empty() => {
                return Err(Failure::new(
                    FailureKind::Closed,
                    "closed by the agent without a word",
                ));
            }
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(connect::broken(&error, "reading the agent's line")),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The words of a line, and what it says of a failure: the text behind `#`, or else the line.
fn parse(line: &str) -> Result<(AgentWords, &str), Failure> {
    let (words, comment) = line.split_once('#').unwrap_or((line, ""));
    let mut said = AgentWords::default();
    for word in words
        .split([' ', '\t', ','])
        .filter(|word| !word.is_empty())
    {
        take(word, &mut said)?;
    }
    if said == AgentWords::default() {
        return Err(Failure::new(
            FailureKind::Protocol,
            format_args!("the agent says {}, which holds no word", quote(line)),
        ));
    }
    let reason = if comment.trim().is_empty() {
        line
    } else {
        comment
    };
    Ok((said, reason.trim()))
}

/// As HAProxy does it, the last word of a kind counts, and case does not.
fn take(word: &str, said: &mut AgentWords) -> Result<(), Failure> {
    match word.to_ascii_lowercase().as_str() {
        "up" => said.is_up = Some(true),
        "down" | "stopped" | "fail" => said.is_up = Some(false),
        "ready" => said.admin = Some(AdminState::Ready),
        "drain" => said.admin = Some(AdminState::Drain),
        "maint" => said.admin = Some(AdminState::Maint),
        // A bound on connections: nothing that an L4 balancer without a queue could keep.
        other if other.starts_with("maxconn:") => {}
        other => said.weight_percent = Some(weight(other).ok_or_else(|| unknown(word))?),
    }
    Ok(())
}

/// `75%`.
fn weight(word: &str) -> Option<u16> {
    let digits = word.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let percent: u16 = is_number.then(|| digits.parse().ok())??;
    (percent <= WEIGHT_MAX_PERCENT).then_some(percent)
}

fn unknown(word: &str) -> Failure {
    Failure::new(
        FailureKind::Protocol,
        format_args!(
            "the agent says {}, which is none of up, down, stopped, fail, ready, drain, maint, 0% to \
             {WEIGHT_MAX_PERCENT}%",
            quote(word)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::hostile::{Server, ask};
    use crate::health::probe::rigged;
    use crate::model::check::CheckKind;

    fn check(send: &str) -> CheckKind {
        CheckKind::Agent(AgentCheck {
            send: send.to_owned(),
        })
    }

    async fn says(line: &'static str) -> (Result<(), Failure>, Option<AgentWords>) {
        let server = Server::start(move |mut stream| async move {
            let _ = stream.write_all(line.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let (result, observed) = ask(&check(""), server.target()).await;
        server.ended().await;
        (result, observed.agent)
    }

    #[tokio::test]
    async fn words_combine_in_any_order_and_case() {
        let (result, words) = says("Ready, UP\t75%,maxconn:30\nnot read").await;
        assert_eq!(result, Ok(()));
        let wanted = AgentWords {
            is_up: Some(true),
            admin: Some(AdminState::Ready),
            weight_percent: Some(75),
        };
        assert_eq!(words, Some(wanted));
    }

    #[tokio::test]
    async fn one_word_is_enough_and_the_line_may_end_by_the_close() {
        let (result, words) = says("drain").await;
        assert_eq!(result, Ok(()));
        assert_eq!(words.unwrap().admin, Some(AdminState::Drain));
        let (result, words) = says("0%\r\n").await;
        assert_eq!(result, Ok(()));
        assert_eq!(words.unwrap().weight_percent, Some(0));
    }

    #[tokio::test]
    async fn a_failure_has_the_agents_reason() {
        for (line, reason) in [
            ("down #disk full\n", "the agent says \"disk full\""),
            ("maint fail\n", "the agent says \"maint fail\""),
            ("stopped#\n", "the agent says \"stopped#\""),
        ] {
            let (result, words) = says(line).await;
            let failure = result.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unexpected);
            assert_eq!(failure.reason, reason);
            assert_eq!(words.unwrap().is_up, Some(false), "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_no_word_changes_nothing() {
        for line in [
            "up and running\n",
            "-5%\n",
            "+5%\n",
            "257%\n",
            "99999%\n",
            "%\n",
            "75\n",
            "#x\n",
            "\n",
        ] {
            let (result, words) = says(line).await;
            assert_eq!(result.unwrap_err().kind, FailureKind::Protocol, "{line:?}");
            assert_eq!(words, None, "{line:?}");
        }
        assert_eq!(says("").await.0.unwrap_err().kind, FailureKind::Closed);
    }

    #[tokio::test]
    async fn what_the_agent_waits_for_is_sent() {
        let server = Server::start(|mut stream| async move {
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).await.expect("a question");
            assert_eq!(&asked, b"web1\n");
            stream.write_all(b"up\n").await.expect("a reader");
        })
        .await;
        let (result, _) = ask(&check("web1\n"), server.target()).await;
        assert_eq!(result, Ok(()));
        server.ended().await;
    }

    #[tokio::test]
    async fn hostile_agents_cost_a_deadline_and_nothing_more() {
        rigged::survives(&check("")).await;
    }
}
