use super::report::{Diagnostic, Label, Severity};
use super::spans::Spans;
use crate::model::{Kind, Problem};

/// A problem of the model as a diagnostic of the file.
pub(super) fn locate(problem: &Problem, spans: &Spans) -> Diagnostic {
    let span = spans.find(problem.place);
    let other = problem.other.and_then(|place| spans.find(place));
    Diagnostic {
        severity: match problem.kind {
            Kind::Invalid | Kind::Conflict | Kind::Full => Severity::Error,
            Kind::Warning => Severity::Warning,
        },
        message: problem.title(),
        help: problem.help.clone(),
        other: other
            .filter(|other| Some(other) != span.as_ref())
            .map(|span| Label {
                span,
                text: "contradicts this",
            }),
        span,
    }
}
