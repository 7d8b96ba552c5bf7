//! The body of an answer: its own bytes without those that only frame it.

use super::{Framing, parse_number};
use crate::health::outcome::{Failure, FailureKind};

/// A chunk's size line with its extensions. Unit: bytes.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Takes a body apart, in whatever pieces it comes.
#[derive(Debug)]
pub(in crate::health::probe) struct Body {
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// Bytes of the body, and what comes after them; `None` of them = until the connection ends.
    Bytes { left: Option<u64>, is_chunk: bool },
    /// The line break after a chunk, then the size line of the next.
    ChunkLine(Vec<u8>),
    /// The body is complete.
    End,
}

impl Body {
    /// A body that ends as its head says.
    pub(in crate::health::probe) fn new(framing: Framing) -> Self {
        let part = match framing {
            Framing::Length(0) => Part::End,
            Framing::Length(length) => Part::Bytes {
                left: Some(length),
                is_chunk: false,
            },
            Framing::Chunked => Part::ChunkLine(Vec::new()),
            Framing::Close => Part::Bytes {
                left: None,
                is_chunk: false,
            },
        };
        Self { part }
    }

    /// Takes bytes off `input` and returns those that belong to the body; empty = `input` is used up, or
    /// the body is complete.
    ///
    /// # Errors
    /// [`FailureKind::Protocol`]: a broken chunk.
    pub(in crate::health::probe) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<&'a [u8], Failure> {
        loop {
            match &mut self.part {
                Part::End => return Ok(&[]),
                Part::Bytes { left, is_chunk } => {
                    let count = left.map_or(input.len(), |left| {
                        input.len().min(usize::try_from(left).unwrap_or(usize::MAX))
                    });
                    let (bytes, rest) = input.split_at(count);
                    *input = rest;
                    if let Some(left) = left {
                        *left -= count as u64;
                        if *left == 0 {
                            self.part = match is_chunk {
                                true => Part::ChunkLine(Vec::new()),
                                false => Part::End,
                            };
                        }
                    }
                    return Ok(bytes);
                }
                Part::ChunkLine(line) => {
                    let Some((byte, rest)) = input.split_first() else {
                        return Ok(&[]);
                    };
                    *input = rest;
                    line.push(*byte);
                    if let Some(size) = parse_chunk_line(line)? {
                        self.part = match size {
                            0 => Part::End,
                            _ => Part::Bytes {
                                left: Some(size),
                                is_chunk: true,
                            },
                        };
                    }
                }
            }
        }
    }

    /// The whole body has come.
    pub(in crate::health::probe) fn is_complete(&self, end: Input) -> bool {
        match &self.part {
            Part::End => true,
            Part::Bytes { left: None, .. } => end == Input::Closed,
            _ => false,
        }
    }
}

/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::health::probe) enum Input {
    /// It can.
    Open,
    /// The server has closed the connection.
    Closed,
}

/// The size in a chunk's line, once the line is complete. The line break that ends the chunk before may
/// come first.
fn parse_chunk_line(line: &[u8]) -> Result<Option<u64>, Failure> {
    let broken = || {
        Failure::new(
            FailureKind::Protocol,
            "the answer's body has a broken chunk",
        )
    };
    if line.len() > CHUNK_LINE_BYTES_MAX {
        return Err(broken());
    }
    let Some(text) = line.strip_suffix(b"\n") else {
        return Ok(None);
    };
    let text = text.strip_prefix(b"\r\n").unwrap_or(text).trim_ascii();
    if text.is_empty() {
        return if line.len() <= 2 {
            Ok(None)
        } else {
            Err(broken())
        };
    }
    let digits = text.split(|byte| *byte == b';').next().unwrap_or(text);
    match parse_number(digits.trim_ascii_end(), 16) {
        Some(size) => Ok(Some(size)),
        None => Err(broken()),
    }
}
