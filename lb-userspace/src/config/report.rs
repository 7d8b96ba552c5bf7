use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// Columns that a report is wrapped at. Unit: characters.
const WIDTH: usize = 110;

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    source: NamedSource<String>,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
        Self {
            source: NamedSource::new(file, text.to_owned()),
            diagnostics,
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Errors in it.
    pub fn error_count(&self) -> usize {
        let errors = self.diagnostics.iter();
        errors
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// One line for each diagnostic: `file:line:column: error: message (help)`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.diagnostics.iter().map(|diagnostic| {
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
        })
    }

    /// `file:line:column`, from 1; columns are characters.
    fn position(&self, diagnostic: &Diagnostic) -> String {
        let file = self.file();
        let Some(span) = &diagnostic.span else {
            return file.to_owned();
        };
        let text = self.source.inner();
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        format!("{file}:{line}:{column}")
    }

    /// Each diagnostic with its place, the lines around it and a caret.
    pub fn render(&self, look: Look) -> String {
        let handler = GraphicalReportHandler::new_themed(look.theme())
            .with_links(false)
            .with_width(WIDTH);
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            if !text.is_empty() {
                text.push('\n');
            }
            let shown = Shown {
                diagnostic,
                source: &self.source,
            };
            // Writing to a string fails only if the source cannot be read, as where a span lies
            // outside it; the plain line is there for that case.
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&format!(
                    "{}: {}\n",
                    self.position(diagnostic),
                    diagnostic.message
                ));
            }
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
    source: &'r NamedSource<String>,
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
        let main = self.diagnostic.span.clone()?;
        let text = self.diagnostic.other.as_ref().map(|_| "here".to_owned());
        let main = LabeledSpan::new_primary_with_span(text, main);
        let other = self.diagnostic.other.iter().map(|other| {
            LabeledSpan::new_with_span(Some(other.text.to_owned()), other.span.clone())
        });
        Some(Box::new(std::iter::once(main).chain(other)))
    }
}
