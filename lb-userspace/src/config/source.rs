//! The text of a config file, with its lines at hand.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Widest line that is drawn. Lines of machine-made files are longer, and nobody reads them with a
/// caret below. Unit: characters.
const DRAWN_COLUMNS_MAX: usize = 200;

/// A file's name, its text, and where the lines begin. Spans are byte ranges; those that reach beyond
/// the text or into a character are cut.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
    /// Bytes; the first is 0.
    line_starts: Vec<usize>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Line and column of a byte, from 1; columns are characters.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line_at(offset);
        let before = &self.text[self.line_starts[line]..offset];
        (line + 1, before.chars().count() + 1)
    }

    /// The part of a span that is on its first line.
    pub(super) fn first_line_of(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end);
        let line_end = start.max(self.line_range(self.line_at(start)).end);
        start..end.clamp(start, line_end)
    }

    /// Whether the line of a byte and its neighbours are narrow enough to be drawn.
    pub(super) fn is_drawable(&self, offset: usize) -> bool {
        let line = self.line_at(offset);
        let last = (line + 1).min(self.line_starts.len() - 1);
        (line.saturating_sub(1)..=last).all(|line| {
            let text = &self.text[self.line_range(line)];
            text.chars().nth(DRAWN_COLUMNS_MAX).is_none()
        })
    }

    /// Index of the line that holds a byte, from 0.
    fn line_at(&self, offset: usize) -> usize {
        let begun = self.line_starts.partition_point(|start| *start <= offset);
        begun.saturating_sub(1)
    }

    /// A line without its end.
    fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.line_starts[line];
        let end = match self.line_starts.get(line + 1) {
            Some(next) => next - 1,
            None => self.text.len(),
        };
        start..end
    }

    /// Where the line after this one begins, or the text ends.
    fn next_line_start(&self, line: usize) -> usize {
        let next = self.line_starts.get(line + 1);
        next.copied().unwrap_or(self.text.len())
    }
}

/// As miette's own source code for strings, which walks through the whole text for each span.
impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_lines_before: usize,
        context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let span_end = span.offset() + span.len();
        if span_end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (line, column) = self.place(span.offset());
        let first = (line - 1).saturating_sub(context_lines_before);
        let last = self.line_at(span_end) + context_lines_after;
        let (start, column) = match context_lines_before {
            0 => (span.offset(), column - 1),
            _ => (self.line_starts[first], 0),
        };
        let end = match context_lines_after {
            0 => span_end,
            _ => self.next_line_start(last),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[start..end],
            (start, end - start).into(),
            first,
            column,
            last + 1 - first,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "one\nzw\u{f6}lf = 12\n\nend";

    #[test]
    fn places_are_lines_and_characters_from_1() {
        let source = Source::new("lbd.toml", TEXT);
        let end = TEXT.len();
        let places = [
            (0, (1, 1)),
            (3, (1, 4)),
            (4, (2, 1)),
            (6, (2, 3)),
            (7, (2, 3)), // inside the ö
            (8, (2, 4)),
            (15, (2, 11)),
            (16, (3, 1)),
            (end, (4, 4)),
            (end + 9, (4, 4)),
        ];
        for (offset, place) in places {
            assert_eq!(source.place(offset), place, "{offset}");
        }
        assert_eq!(Source::new("lbd.toml", "").place(5), (1, 1));
    }

    #[test]
    fn spans_are_cut_to_their_first_line_and_to_the_text() {
        let source = Source::new("lbd.toml", TEXT);
        assert_eq!(source.first_line_of(&(1..99)), 1..3);
        assert_eq!(source.first_line_of(&(4..7)), 4..6);
        assert_eq!(source.first_line_of(&(99..100)), TEXT.len()..TEXT.len());
        assert_eq!(source.first_line_of(&(3..5)), 3..3);
    }

    #[test]
    fn wide_lines_are_not_drawn_nor_are_their_neighbours() {
        let wide = "x".repeat(DRAWN_COLUMNS_MAX + 1);
        let source = Source::new("lbd.toml", &format!("a\nb\n{wide}\nc\nd"));
        let is_drawable = |line: usize| source.is_drawable(source.line_starts[line]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(is_drawable),
            [true, false, false, false, true]
        );
    }

    #[test]
    fn context_is_whole_lines() {
        let source = Source::new("lbd.toml", TEXT);
        let read = |span: (usize, usize), before, after| {
            let contents = source.read_span(&span.into(), before, after).unwrap();
            let text = std::str::from_utf8(contents.data()).unwrap().to_owned();
            (text, contents.line(), contents.column())
        };
        assert_eq!(read((8, 2), 0, 0), ("lf".to_owned(), 1, 3));
        assert_eq!(
            read((8, 2), 1, 1),
            ("one\nzw\u{f6}lf = 12\n\n".to_owned(), 0, 0)
        );
        assert_eq!(read((TEXT.len(), 0), 1, 1), ("\nend".to_owned(), 2, 0));
        assert!(source.read_span(&(0, 99).into(), 1, 1).is_err());
    }
}
