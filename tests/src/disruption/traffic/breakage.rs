//! How a connection breaks.

use std::fmt;
use std::io;

/// How a connection broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// RST.
    Reset,
    /// Nobody listens: RST to a SYN, or ICMP to a datagram.
    Refused,
    /// The other side ended it.
    Closed,
    /// No answer in time.
    TimedOut,
    /// Something else than what had to come.
    WrongData(String),
    /// Another backend answers.
    OtherBackend {
        /// Who had answered until then.
        from: u8,
        /// Who answers now.
        to: u8,
    },
    /// Another error of the socket.
    Socket(String),
}

impl Breakage {
    /// The kind, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::TimedOut => "timed out",
            Self::WrongData(_) => "wrong data",
            Self::OtherBackend { .. } => "other backend",
            Self::Socket(_) => "socket error",
        }
    }
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongData(what) | Self::Socket(what) => write!(f, "{}: {what}", self.word()),
            Self::OtherBackend { from, to } => write!(f, "{}: web{from}, web{to}", self.word()),
            _ => f.write_str(self.word()),
        }
    }
}

impl From<io::Error> for Breakage {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Socket(error.to_string()),
        }
    }
}

impl From<tokio::time::error::Elapsed> for Breakage {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::TimedOut
    }
}
