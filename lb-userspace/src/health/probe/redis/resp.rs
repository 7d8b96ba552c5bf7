//! RESP, the protocol of Redis, as far as an answer to AUTH, PING, ROLE and INFO needs it.
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>)

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::connect::{self, AnyStream};

/// The longest line: an error, a status, a length. Unit: bytes.
const LINE_MAX_BYTES: u64 = 1024;

/// The longest bulk string. INFO replication has about 1 KiB, and a line for each replica. Unit: bytes.
const BULK_MAX_BYTES: usize = 64 * 1024;

/// All values of an answer. ROLE of a primary has three for each replica, and four. Unit: values.
const VALUES_MAX: usize = 1024;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    Null,
    /// An array's begin: so many values follow.
    Array(usize),
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A connection, bounded as a whole by [`connect::READ_BYTES_MAX`].
pub(super) struct Resp(BufReader<AnyStream>);

impl Resp {
    pub(super) fn over(stream: AnyStream) -> Self {
        Self(BufReader::with_capacity(4096, stream))
    }

    /// Sends a command: an array of bulk strings, which may hold any bytes.
    pub(super) async fn send(&mut self, command: &[&[u8]], doing: &str) -> Result<(), Failure> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(*word);
            bytes.extend(b"\r\n");
        }
        let sent = async {
            self.0.write_all(&bytes).await?;
            self.0.flush().await
        };
        sent.await.map_err(|error| connect::broken(&error, doing))
    }

    /// Reads an answer: the values in the order they come, arrays flattened behind their begins.
    pub(super) async fn read(&mut self, doing: &str) -> Result<Vec<Value>, Failure> {
        let mut values = Vec::new();
        let mut wanted = 1_usize;
        while wanted > 0 {
            let value = self.value(doing).await?;
            wanted -= 1;
            if let Value::Array(count) = value {
                wanted = wanted.saturating_add(count);
            }
            values.push(value);
            if values.len().saturating_add(wanted) > VALUES_MAX {
                return Err(garbage(doing, "an answer of too many values"));
            }
        }
        Ok(values)
    }

    async fn value(&mut self, doing: &str) -> Result<Value, Failure> {
        let line = self.line(doing).await?;
        let no_redis = || garbage(doing, "this is no Redis server");
        let (kind, rest) = line.split_at_checked(1).ok_or_else(no_redis)?;
        match kind {
            "+" => Ok(Value::Text(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => rest.parse().map(Value::Integer).map_err(|_| no_redis()),
            "*" if rest == "-1" => Ok(Value::Null),
            "*" => rest.parse().map(Value::Array).map_err(|_| no_redis()),
            "$" if rest == "-1" => Ok(Value::Null),
            "$" => {
                let length = rest.parse().map_err(|_| no_redis())?;
                self.bulk(length, doing).await.map(Value::Text)
            }
            _ => Err(no_redis()),
        }
    }

    async fn bulk(&mut self, length: usize, doing: &str) -> Result<String, Failure> {
        if length > BULK_MAX_BYTES {
            return Err(garbage(doing, "an answer longer than a check reads"));
        }
        let mut bytes = vec![0; length + 2];
        self.0
            .read_exact(&mut bytes)
            .await
            .map_err(|error| connect::broken(&error, doing))?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn line(&mut self, doing: &str) -> Result<String, Failure> {
        let mut line = Vec::new();
        (&mut self.0)
            .take(LINE_MAX_BYTES)
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| connect::broken(&error, doing))?;
        match line.strip_suffix(b"\r\n") {
            Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            None if line.len() as u64 == LINE_MAX_BYTES || line.ends_with(b"\n") => {
                Err(garbage(doing, "this is no Redis server"))
            }
            None => Err(Failure::new(
                FailureKind::Closed,
                format!("{doing}: closed by the server"),
            )),
        }
    }
}

fn garbage(doing: &str, what: &str) -> Failure {
    Failure::new(FailureKind::Protocol, format!("{doing}: {what}"))
}
