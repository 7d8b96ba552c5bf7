use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use toml::de::DeTable;

use super::reader::Reader;
use super::report::{Diagnostic, Report};
use super::{schema, validate};
use crate::model::Model;
use crate::model::draft::{Draft, Field, InterfaceDraft};
use crate::model::rules::{self, Checked};

/// Largest file that is read: a service with its backends takes a few hundred bytes, so this is
/// beyond what the ids allow. Unit: bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What comes from outside the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Interfaces of the command line: added unless the file names them.
    pub interfaces: Vec<String>,
    /// The node's name where the file gives none.
    pub node: String,
}

/// A checked model, and what is worth knowing about it.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Warnings only.
    pub warnings: Report,
}

/// Reads and checks a config file; without one, the model of an empty file.
///
/// # Errors
/// A [`Report`] with every error in the file.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Report> {
    let Some(path) = file else {
        return parse("command line", "", overrides);
    };
    let name = path.display().to_string();
    match read_text(path) {
        Ok(text) => parse(&name, &text, overrides),
        Err(problem) => {
            let message = format!("cannot read {name}: {problem}");
            Err(Report::new(
                &name,
                "",
                vec![Diagnostic::error(None, message)],
            ))
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    // A FIFO that nobody writes to is not waited for.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(text)?;
    if !file.metadata().map_err(text)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut content = Vec::new();
    // What the file grows by meanwhile is not in its length.
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    let bytes = limited.read_to_end(&mut content).map_err(text)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "it is larger than {FILE_BYTES_MAX} bytes, which is as much as is read"
        ));
    }
    String::from_utf8(content).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        format!("it is no UTF-8 text: see byte {byte}")
    })
}

/// Checks the text of a config file; `name` is for the messages.
///
/// # Errors
/// A [`Report`] with every error in the text.
pub fn parse(name: &str, text: &str, overrides: &Overrides) -> Result<Loaded, Report> {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::default();
    for error in &syntax_errors {
        reader.push(syntax_diagnostic(error, text));
    }
    // A duplicate key leaves the tree whole; after any other slip of syntax, what follows is
    // guesswork and would only bury it.
    if !syntax_errors.iter().all(is_duplicate_key) {
        return Err(Report::new(name, text, reader.diagnostics));
    }

    let mut draft = schema::read(root.get_ref(), &mut reader);
    add_overrides(&mut draft, overrides);
    let Checked {
        model,
        errors,
        warnings,
    } = rules::check(&draft);
    let locate = |problem| validate::locate(problem, &reader.spans);
    let errors: Vec<_> = errors.iter().map(locate).collect();
    let warnings: Vec<_> = warnings.iter().map(locate).collect();
    reader.diagnostics.extend(errors);
    match model {
        Some(model) if reader.diagnostics.is_empty() => Ok(Loaded {
            model,
            warnings: Report::new(name, text, warnings),
        }),
        _ => {
            reader.diagnostics.extend(warnings);
            Err(Report::new(name, text, reader.diagnostics))
        }
    }
}

fn is_duplicate_key(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

fn syntax_diagnostic(error: &toml::de::Error, text: &str) -> Diagnostic {
    let span = error.span().map(|span| within(span, text));
    let key = span
        .clone()
        .and_then(|span| text.get(span))
        .unwrap_or_default();
    let message = if is_duplicate_key(error) {
        format!("`{key}` is written twice in this table")
    } else {
        format!("this is not TOML: {}", error.message())
    };
    Diagnostic::error(span, message)
}

/// A parser's span cut to the text: one at the end of the file may reach beyond.
fn within(span: std::ops::Range<usize>, text: &str) -> std::ops::Range<usize> {
    let start = span.start.min(text.len());
    start..span.end.clamp(start, text.len())
}

fn add_overrides(draft: &mut Draft, overrides: &Overrides) {
    if draft.node == Field::Absent {
        draft.node = Field::Given(overrides.node.clone());
    }
    for name in &overrides.interfaces {
        let is_known = |known: &InterfaceDraft| known.name.given() == Some(name);
        if !draft.interfaces.iter().any(is_known) {
            draft.interfaces.push(InterfaceDraft {
                name: Field::Given(name.clone()),
                ..InterfaceDraft::default()
            });
        }
    }
}
