use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

use super::mask;
use super::source::Source;

/// Columns that a report is wrapped at. Unit: characters.
const WIDTH: usize = 110;

/// Most diagnostics that are told; whoever has more mends the first ones first.
const SHOWN_MAX: usize = 100;

/// Longest message and help. They quote what was written, which may be anything. Unit: characters.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// A span of the text, in bytes, and what to write beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) span: Range<usize>,
    pub(super) text: &'static str,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Bytes of the text; `None` = it is not about a place in the file.
    pub(super) span: Option<Range<usize>>,
    pub(super) other: Option<Label>,
}

impl Diagnostic {
    pub(super) fn error(span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            span,
            other: None,
        }
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Where its place begins; those without one come first.
    fn start(&self) -> Option<usize> {
        self.span.as_ref().map(|span| span.start)
    }

    fn shorten(&mut self) {
        for text in std::iter::once(&mut self.message).chain(&mut self.help) {
            if let Some((end, _)) = text.char_indices().nth(MESSAGE_CHARS_MAX) {
                text.truncate(end);
                text.push_str(" …");
            }
        }
    }
}

/// How a report is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// ASCII without colours, for logs and pipes.
    Plain,
    /// Box-drawing characters, and colours unless `NO_COLOR` is set.
    Terminal,
}

impl Look {
    /// The look that fits where standard error goes.
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::Plain
        }
    }

    fn theme(self) -> GraphicalTheme {
        match self {
            Self::Plain => GraphicalTheme::none(),
            Self::Terminal if std::env::var_os("NO_COLOR").is_some() => {
                GraphicalTheme::unicode_nocolor()
            }
            Self::Terminal => GraphicalTheme::unicode(),
        }
    }
}

/// Everything that is to be said about a config file.
pub struct Report {
    source: Source,
    /// In the order of the file.
    shown: Vec<Diagnostic>,
    omitted_count: usize,
    error_count: usize,
}

impl Report {
    pub(super) fn new(file: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        let is_error = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        let error_count = diagnostics.iter().filter(is_error).count();
        // No warning takes an error's place.
        diagnostics.sort_by_key(|diagnostic| (diagnostic.severity, diagnostic.start()));
        let omitted_count = diagnostics.len().saturating_sub(SHOWN_MAX);
        diagnostics.truncate(SHOWN_MAX);
        diagnostics.sort_by_key(Diagnostic::start);
        diagnostics.iter_mut().for_each(Diagnostic::shorten);
        let shown_text = match diagnostics.is_empty() {
            true => String::new(),
            false => mask::passwords(text),
        };
        Self {
            source: Source::new(file, &shown_text),
            shown: diagnostics,
            omitted_count,
            error_count,
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Errors in it.
    pub fn error_count(&self) -> usize {
        self.error_count
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// One line for each diagnostic: `file:line:column: error: message (help)`; of very many the
    /// first, and how many more there are.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.shown
            .iter()
            .map(|diagnostic| self.line(diagnostic))
            .chain(self.omission())
    }

    fn line(&self, diagnostic: &Diagnostic) -> String {
        let help = diagnostic.help.as_ref().map(|help| format!(" ({help})"));
        format!(
            "{}: {}: {}{}",
            self.position(diagnostic),
            match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            diagnostic.message,
            help.unwrap_or_default()
        )
    }

    fn omission(&self) -> Option<String> {
        let count = self.omitted_count;
        (count > 0).then(|| format!("{}: and {count} more", self.file()))
    }

    /// `file:line:column`, from 1; columns are characters.
    fn position(&self, diagnostic: &Diagnostic) -> String {
        let file = self.file();
        let Some(start) = diagnostic.start() else {
            return file.to_owned();
        };
        let (line, column) = self.source.place(start);
        format!("{file}:{line}:{column}")
    }

    /// Each diagnostic with its place, the lines around it and a caret; where these lines are too wide
    /// for that, as one line.
    pub fn render(&self, look: Look) -> String {
        let handler = GraphicalReportHandler::new_themed(look.theme())
            .with_links(false)
            .with_width(WIDTH);
        let mut text = String::new();
        for diagnostic in &self.shown {
            if !text.is_empty() {
                text.push('\n');
            }
            let shown = Shown {
                diagnostic,
                source: &self.source,
            };
            if !shown.is_drawable() || handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&self.line(diagnostic));
                text.push('\n');
            }
        }
        if let Some(omission) = self.omission() {
            text.push_str(&format!("\n{omission}\n"));
        }
        text
    }
}

/// One line for each diagnostic.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// A diagnostic with its source, in miette's terms.
#[derive(Debug)]
struct Shown<'r> {
    diagnostic: &'r Diagnostic,
    source: &'r Source,
}

impl Shown<'_> {
    /// Whether all places are in lines that can be drawn.
    fn is_drawable(&self) -> bool {
        let other = self.diagnostic.other.as_ref().map(|other| &other.span);
        let mut spans = self.diagnostic.span.iter().chain(other);
        spans.all(|span| self.source.is_drawable(span.start))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.diagnostic.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        // A message without a place is followed by no snippet.
        self.diagnostic.span.as_ref()?;
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = self.source.first_line_of(self.diagnostic.span.as_ref()?);
        let text = self.diagnostic.other.as_ref().map(|_| "here".to_owned());
        let main = LabeledSpan::new_primary_with_span(text, main);
        let other = self.diagnostic.other.iter().map(|other| {
            let span = self.source.first_line_of(&other.span);
            LabeledSpan::new_with_span(Some(other.text.to_owned()), span)
        });
        Some(Box::new(std::iter::once(main).chain(other)))
    }
}
