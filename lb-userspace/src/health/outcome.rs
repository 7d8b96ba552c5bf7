//! What one probe has found.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What one probe has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether the answer was as it has to be.
    pub result: Result<(), Failure>,
    /// What was learnt besides, whatever the result.
    pub observed: Observed,
    /// How long it took.
    pub duration: Duration,
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, for metrics and for whoever counts.
    pub kind: FailureKind,
    /// The reason in words, without the backend's name: one line of printable text, at most
    /// [`REASON_MAX_BYTES`], and never a password.
    pub reason: String,
}

/// The longest reason that is kept; what a server says beyond it is cut off. Unit: bytes.
pub const REASON_MAX_BYTES: usize = 200;

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// The time-out passed; the reason says while doing what.
    TimedOut,
    /// Nobody listens (RST to a SYN, or ICMP port unreachable).
    Refused,
    /// The connection was reset or closed before the answer was complete.
    Closed,
    /// No way there: no route, no such source address, ICMP unreachable.
    Unreachable,
    /// The answer is none of the protocol.
    Protocol,
    /// The answer is one of the protocol, and not the one that is wanted (a status, a text, a role).
    Unexpected,
    /// TLS: the certificate or the handshake.
    Tls,
    /// The server refused the user or the password, or has no connection left for it.
    Access,
    /// This node cannot ask: no descriptor, no password file, no such program.
    Local,
}

impl FailureKind {
    /// One word, for metrics and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Unreachable => "unreachable",
            Self::Protocol => "protocol",
            Self::Unexpected => "unexpected",
            Self::Tls => "tls",
            Self::Access => "access",
            Self::Local => "local",
        }
    }
}

impl Failure {
    /// A failure with its reason: control characters are replaced, and what is too long is cut.
    pub fn new(kind: FailureKind, reason: impl fmt::Display) -> Self {
        let mut text: String = reason
            .to_string()
            .chars()
            .map(|one| if one.is_control() { ' ' } else { one })
            .collect();
        if text.len() > REASON_MAX_BYTES {
            let end = (0..=REASON_MAX_BYTES - '…'.len_utf8())
                .rev()
                .find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        Self { kind, reason: text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// What a probe has learnt besides whether the backend answers. `None` = it was not asked, or not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The database accepts writes.
    pub writable: Option<bool>,
    /// The replica fetches and applies.
    pub replication_running: Option<bool>,
    /// How far the replica is behind. Unit: seconds.
    pub lag_s: Option<u32>,
    /// Days until the certificate expires; negative since it has.
    pub certificate_days: Option<i64>,
    /// Worth a warning, such as a certificate that soon expires.
    pub warning: Option<String>,
    /// What an agent said.
    pub agent: Option<AgentWords>,
    /// What the probe is doing, such as `TLS handshake`: the reason of a time-out names it. Empty once the
    /// probe has ended.
    pub doing: Cow<'static, str>,
}

/// What an agent said (HAProxy's agent-check: words separated by spaces, tabs or commas).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentWords {
    /// `up`, or `down` / `stopped` / `fail`.
    pub is_up: Option<bool>,
    /// `ready`, `drain` or `maint`.
    pub admin: Option<crate::model::AdminState>,
    /// `75%`: the weight, as a part of the configured one. Unit: per cent, 0 to 256.
    pub weight_percent: Option<u16>,
}

impl AgentWords {
    /// What holds after an agent said this, and had said `before` until then: what an answer does not mention
    /// stays as it was. So `up` takes back a `down`, `ready` a `drain` or `maint`, `100%` a weight, and nothing
    /// else does (HAProxy 2.8, configuration manual, section 5.2, `agent-check`).
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        Self {
            is_up: self.is_up.or(before.is_up),
            admin: self.admin.or(before.admin),
            weight_percent: self.weight_percent.or(before.weight_percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_does_not_mention_stays_as_it_was() {
        use crate::model::AdminState;
        let words = |is_up, admin, weight_percent| AgentWords {
            is_up,
            admin,
            weight_percent,
        };
        let (drain, ready) = (Some(AdminState::Drain), Some(AdminState::Ready));
        let mut held = AgentWords::default();
        for (said, holds) in [
            (words(None, drain, None), words(None, drain, None)),
            (words(None, None, Some(50)), words(None, drain, Some(50))),
            (
                words(Some(false), None, None),
                words(Some(false), drain, Some(50)),
            ),
            (
                words(None, ready, None),
                words(Some(false), ready, Some(50)),
            ),
            (
                words(Some(true), None, Some(100)),
                words(Some(true), ready, Some(100)),
            ),
        ] {
            held = said.after(&held);
            assert_eq!(held, holds, "after {said:?}");
        }
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let failure = Failure::new(FailureKind::Protocol, "it said\r\n\u{1b}[31m".to_owned());
        assert_eq!(failure.reason, "it said   [31m");
        let long = Failure::new(FailureKind::Protocol, "ä".repeat(500));
        assert!(long.reason.len() <= REASON_MAX_BYTES);
        assert!(long.reason.ends_with("ä…"));
    }
}
