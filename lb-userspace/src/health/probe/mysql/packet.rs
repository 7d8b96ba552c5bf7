//! Packets of the MySQL client/server protocol: three bytes of length (little-endian), a sequence
//! number, the payload.

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::connect::{self, AnyStream};

/// The largest packet that is read. What a check asks for needs a few hundred bytes; a row of SHOW
/// REPLICA STATUS a few thousand. Unit: bytes.
const PACKET_MAX_BYTES: usize = 64 * 1024;

/// A stream of packets, bounded as a whole by [`connect::READ_BYTES_MAX`]. The sequence number starts anew with each command.
pub(super) struct Packets {
    stream: BufReader<AnyStream>,
    sequence: u8,
}

impl Packets {
    pub(super) fn over(stream: AnyStream) -> Self {
        Self {
            stream: BufReader::with_capacity(4096, stream),
            sequence: 0,
        }
    }

    /// The next packet's payload.
    pub(super) async fn read(&mut self, doing: &str) -> Result<Vec<u8>, Failure> {
        let broken = |error| connect::broken(&error, doing);
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.map_err(broken)?;
        let [low, middle, high, sequence] = header;
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if sequence != self.sequence {
            return Err(garbage(format!(
                "{doing}: packet {sequence} in place of {}: this is no MySQL server",
                self.sequence
            )));
        }
        if length > PACKET_MAX_BYTES {
            return Err(garbage(format!(
                "{doing}: a packet of {length} bytes, more than a check reads"
            )));
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.map_err(broken)?;
        Ok(payload)
    }

    /// The next packet's payload, which must not be empty, and no error.
    pub(super) async fn expect(&mut self, doing: &str) -> Result<Vec<u8>, Refusal> {
        let payload = self.read(doing).await?;
        match payload.first() {
            Some(0xff) => Err(Refusal::Words(ServerError::parse(&payload))),
            Some(_) => Ok(payload),
            None => Err(garbage(format!("{doing}: an empty packet")).into()),
        }
    }

    /// Sends a packet as the conversation's next.
    pub(super) async fn write(&mut self, payload: &[u8], doing: &str) -> Result<(), Failure> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length < 0x00ff_ffff)
            .ok_or_else(|| {
                Failure::new(FailureKind::Local, format!("{doing}: more than 16 MiB"))
            })?;
        let mut packet = length.to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let whole = [&packet, payload].concat();
        let sent = async {
            self.stream.write_all(&whole).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| connect::broken(&error, doing))
    }

    /// Sends a command, with which the sequence starts anew.
    pub(super) async fn command(&mut self, payload: &[u8], doing: &str) -> Result<(), Failure> {
        self.sequence = 0;
        self.write(payload, doing).await
    }

    /// Reads until the server has closed. What it still says is dropped, and bounded too.
    pub(super) async fn closed(&mut self) {
        let mut left = [0; 512];
        while matches!(self.stream.read(&mut left).await, Ok(1..)) {}
    }
}

/// Why a server did not do as asked.
pub(super) enum Refusal {
    /// The conversation is over.
    Broken(Failure),
    /// It said why, and may go on.
    Words(ServerError),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure)
    }
}

/// An ERR packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: u16,
    pub(super) words: String,
}

impl ServerError {
    /// `0xff`, the code, and the words; between them a state of five letters after `#`, once the
    /// server knows that the client is not of 1998.
    fn parse(payload: &[u8]) -> Self {
        let mut at = Cursor::of(payload);
        let _ = at.bytes(1);
        let code = at.u16().unwrap_or(0);
        let rest = at.rest();
        let words = match rest {
            [b'#', _, _, _, _, _, words @ ..] => words,
            words => words,
        };
        Self {
            code,
            words: String::from_utf8_lossy(words).into_owned(),
        }
    }

    pub(super) fn failure(&self, kind: FailureKind, doing: &str) -> Failure {
        Failure::new(
            kind,
            format!("{doing}: error {}: {}", self.code, self.words),
        )
    }
}

/// A failure of the protocol.
pub(super) fn garbage(reason: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Protocol, reason)
}

/// A place in a packet; whatever lies beyond its end is `None`.
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|byte| byte[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.integer(2).and_then(|value| u16::try_from(value).ok())
    }

    /// Up to the next NUL, which is skipped.
    pub(super) fn until_nul(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Some(text)
    }

    /// A length-encoded integer.
    pub(super) fn length(&mut self) -> Option<u64> {
        match self.u8()? {
            small @ 0..=0xfa => Some(u64::from(small)),
            0xfc => self.integer(2),
            0xfd => self.integer(3),
            0xfe => self.integer(8),
            _ => None,
        }
    }

    /// A length-encoded string.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// A field of a row: a length-encoded string, or NULL.
    pub(super) fn field(&mut self) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&0xfb) {
            self.u8()?;
            return Some(None);
        }
        self.text().map(Some)
    }

    fn integer(&mut self, count: usize) -> Option<u64> {
        let bytes = self.bytes(count)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_the_protocol_encodes_them() {
        let mut at = Cursor::of(b"\xfa\xfc\x01\x02\xfd\x01\x02\x03\xfe\x01\0\0\0\0\0\0\x80\xff");
        assert_eq!(at.length(), Some(0xfa));
        assert_eq!(at.length(), Some(0x0201));
        assert_eq!(at.length(), Some(0x0003_0201));
        assert_eq!(at.length(), Some(0x8000_0000_0000_0001));
        assert_eq!(at.length(), None);
    }

    #[test]
    fn what_claims_more_than_there_is_is_nothing() {
        assert_eq!(Cursor::of(b"\x05abcd").text(), None);
        assert_eq!(
            Cursor::of(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffx").text(),
            None
        );
        assert_eq!(Cursor::of(b"no end").until_nul(), None);
        assert_eq!(Cursor::of(b"\xfb\x01x").field(), Some(None));
    }

    #[test]
    fn an_error_is_read_with_and_without_its_state() {
        let with_state = ServerError::parse(b"\xff\x15\x04#28000Access denied");
        assert_eq!(with_state.code, 1045);
        assert_eq!(with_state.words, "Access denied");
        let without = ServerError::parse(b"\xff\x10\x04Too many connections");
        assert_eq!(without.words, "Too many connections");
        assert_eq!(ServerError::parse(b"\xff").code, 0);
    }
}
