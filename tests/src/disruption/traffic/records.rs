//! Flows to our own server over TCP: words there and back, and half-closed downloads.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::breakage::Breakage;
use super::flow::Flow;
use super::ledger::FlowId;
use super::world::connect;
use crate::disruption::record::{Kind, RECORD_LEN, Record, now_ns};

/// Bytes that are read at once.
const READ_LEN: usize = 16 << 10;

/// Cuts what is read into records. [`RecordReader::next`] may be given up at any time without loss.
#[derive(Debug, Default)]
pub(super) struct RecordReader {
    bytes: Vec<u8>,
    taken: usize,
}

impl RecordReader {
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Record, Breakage> {
        while self.bytes.len() - self.taken < RECORD_LEN {
            self.bytes.drain(..self.taken);
            self.taken = 0;
            self.bytes.reserve(READ_LEN);
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(Breakage::Closed);
            }
        }
        let bytes = &self.bytes[self.taken..self.taken + RECORD_LEN];
        let record = Record::parse(bytes);
        let record = record.ok_or_else(|| Breakage::WrongData(format!("{bytes:02x?}")));
        self.taken += RECORD_LEN;
        record
    }
}

/// Compares an answer with what was asked, and with who answered before.
pub(super) fn check_answer(answer: &Record, asked: &Record, backend: u8) -> Result<(), Breakage> {
    let expected = Record {
        server: answer.server,
        ..*asked
    };
    if *answer != expected {
        return Err(Breakage::WrongData(format!("{answer:?} to {asked:?}")));
    }
    check_backend(backend, answer.server)
}

/// 0: nobody has answered yet.
pub(super) fn check_backend(from: u8, to: u8) -> Result<(), Breakage> {
    if from == 0 || from == to {
        Ok(())
    } else {
        Err(Breakage::OtherBackend { from, to })
    }
}

/// Records there and back, one after another.
pub(super) struct Words {
    stream: TcpStream,
    reader: RecordReader,
    id: FlowId,
    said_count: u64,
    backend: u8,
}

impl Words {
    /// Connects and says the first word.
    pub(super) async fn open(address: SocketAddr, id: FlowId) -> Result<Self, Breakage> {
        let mut words = Self {
            stream: connect(address).await?,
            reader: RecordReader::default(),
            id,
            said_count: 0,
            backend: 0,
        };
        words.step().await?;
        Ok(words)
    }
}

impl Flow for Words {
    async fn step(&mut self) -> Result<(), Breakage> {
        self.said_count += 1;
        let asked = Record {
            kind: Kind::Echo,
            server: 0,
            flow: self.id,
            sequence: self.said_count,
            epoch: 0,
            sent_ns: now_ns(),
        };
        self.stream.write_all(&asked.bytes()).await?;
        let answer = self.reader.next(&mut self.stream).await?;
        check_answer(&answer, &asked, self.backend)?;
        self.backend = answer.server;
        Ok(())
    }

    fn backend(&self) -> u8 {
        self.backend
    }
}

/// A download whose client has nothing more to say.
pub(super) struct HalfClosed {
    stream: TcpStream,
    reader: RecordReader,
    id: FlowId,
    heard_count: u64,
    backend: u8,
}

impl HalfClosed {
    /// Connects, asks, sends FIN, and reads the first record.
    pub(super) async fn open(address: SocketAddr, id: FlowId) -> Result<Self, Breakage> {
        let mut stream = connect(address).await?;
        let asked = Record {
            kind: Kind::Download,
            server: 0,
            flow: id,
            sequence: 0,
            epoch: 0,
            sent_ns: now_ns(),
        };
        stream.write_all(&asked.bytes()).await?;
        stream.shutdown().await?;
        let mut download = Self {
            stream,
            reader: RecordReader::default(),
            id,
            heard_count: 0,
            backend: 0,
        };
        download.hear().await?;
        Ok(download)
    }

    async fn hear(&mut self) -> Result<Record, Breakage> {
        let record = self.reader.next(&mut self.stream).await?;
        if (record.kind, record.flow, record.sequence)
            != (Kind::Download, self.id, self.heard_count)
        {
            let (id, heard_count) = (self.id, self.heard_count);
            return Err(Breakage::WrongData(format!(
                "{record:?} is not record {heard_count} of flow {id}"
            )));
        }
        check_backend(self.backend, record.server)?;
        self.backend = record.server;
        self.heard_count += 1;
        Ok(record)
    }
}

impl Flow for HalfClosed {
    async fn step(&mut self) -> Result<(), Breakage> {
        self.hear().await?;
        Ok(())
    }

    /// A record that was sent after the round began.
    async fn prove(&mut self) -> Result<(), Breakage> {
        let began_ns = now_ns();
        while self.hear().await?.sent_ns < began_ns {}
        Ok(())
    }

    fn backend(&self) -> u8 {
        self.backend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(server: u8, sequence: u64) -> Record {
        Record {
            kind: Kind::Echo,
            server,
            flow: 1,
            sequence,
            epoch: 0,
            sent_ns: 5,
        }
    }

    #[test]
    fn an_answer_of_another_backend_and_a_wrong_one_are_breakages() {
        let asked = record(0, 9);
        assert_eq!(check_answer(&record(2, 9), &asked, 0), Ok(()));
        assert_eq!(check_answer(&record(2, 9), &asked, 2), Ok(()));
        let other = Breakage::OtherBackend { from: 1, to: 2 };
        assert_eq!(check_answer(&record(2, 9), &asked, 1), Err(other));
        let wrong = check_answer(&record(2, 8), &asked, 2).unwrap_err();
        assert_eq!(wrong.word(), "wrong data");
    }

    #[tokio::test]
    async fn records_are_cut_wherever_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..50).flat_map(|n| record(1, n).bytes()).collect();
        let (mut near, mut far) = tokio::io::duplex(7);
        let sender = tokio::spawn(async move { far.write_all(&bytes).await });
        let mut reader = RecordReader::default();
        for n in 0..50 {
            assert_eq!(reader.next(&mut near).await.unwrap(), record(1, n));
        }
        sender.await.unwrap().unwrap();
        assert_eq!(reader.next(&mut near).await, Err(Breakage::Closed));
    }
}
