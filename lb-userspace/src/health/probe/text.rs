//! A text that is looked for in the begin of an answer.

/// What a reason quotes of what a server says. Unit: bytes.
const QUOTE_BYTES_MAX: usize = 60;

/// Gathers the begin of an answer until a text is found in it.
pub(super) struct Text<'a> {
    wanted: &'a [u8],
    seen: Vec<u8>,
    bytes_max: usize,
}

impl<'a> Text<'a> {
    /// Looks for `wanted` in the first `bytes_max` bytes.
    pub(super) fn new(wanted: &'a str, bytes_max: usize) -> Self {
        Self {
            wanted: wanted.as_bytes(),
            seen: Vec::new(),
            bytes_max,
        }
    }

    /// Takes the next bytes, and tells whether the text has been found. An empty one always is.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let room = self.bytes_max - self.seen.len();
        let from = self
            .seen
            .len()
            .saturating_sub(self.wanted.len().saturating_sub(1));
        self.seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
        contains(&self.seen[from..], self.wanted)
    }

    /// The bound is reached.
    pub(super) fn is_full(&self) -> bool {
        self.seen.len() == self.bytes_max
    }

    /// What has come so far, up to the bound.
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }
}

/// Whether `wanted` occurs in `bytes`; what is empty does.
fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else {
        return true;
    };
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

/// The begin of what a server said, in quotes.
pub(super) fn quote(bytes: impl AsRef<[u8]>) -> String {
    quote_up_to(bytes, QUOTE_BYTES_MAX)
}

/// As [`quote`], where more than usual is worth reading.
pub(super) fn quote_up_to(bytes: impl AsRef<[u8]>, bytes_max: usize) -> String {
    let bytes = bytes.as_ref();
    let cut = &bytes[..bytes.len().min(bytes_max)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{dots}\"", String::from_utf8_lossy(cut).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_pieces_and_only_within_the_bound() {
        let mut text = Text::new("+PONG", 16);
        assert!(!text.push(b"-ERR +P"));
        assert!(!text.push(b"O"));
        assert!(text.push(b"NG\r\n"));

        let mut late = Text::new("+PONG", 8);
        assert!(!late.push(b"12345+PO"));
        assert!(late.is_full());
        assert!(!late.push(b"NG"), "beyond the bound");
        assert_eq!(late.seen(), b"12345+PO");

        assert!(Text::new("", 4).push(b""));
        assert!(contains(b"aaab", b"aab"));
    }

    #[test]
    fn a_quotation_is_short() {
        assert_eq!(quote(b"220 ready\r\n"), "\"220 ready\"");
        assert!(quote([0xff; 500]).len() < 4 * QUOTE_BYTES_MAX);
    }
}
