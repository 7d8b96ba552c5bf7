//! Reading the machine's own apt configuration, to learn which Debian mirror it uses and how that
//! is signed. Both formats of sources.list(5): one line for each source, and deb822 paragraphs
//! (`.sources`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A mirror of the Debian archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Mirror {
    /// The one-line source for `suite` on this mirror.
    pub(super) fn one_line(&self, suite: &str, component: &str) -> String {
        let options = self
            .signed_by
            .as_ref()
            .map_or(String::new(), |key| format!("[signed-by={key}] "));
        format!("deb {options}{} {suite} {component}\n", self.uri)
    }

    /// A mirror of the main archive: not of the security archive, nor of another vendor's packages.
    fn is_debian_archive(&self) -> bool {
        self.uri.trim_end_matches('/').ends_with("/debian")
    }
}

/// The first mirror of the Debian archive that the configuration in `etc_apt` names.
pub(super) fn debian_mirror(etc_apt: &Path) -> Result<Mirror> {
    source_files(etc_apt)
        .iter()
        .filter_map(|path| Some((path, fs::read_to_string(path).ok()?)))
        .flat_map(|(path, text)| {
            if path
                .extension()
                .is_some_and(|extension| extension == "sources")
            {
                parse_deb822(&text)
            } else {
                parse_one_line(&text)
            }
        })
        .find(Mirror::is_debian_archive)
        .with_context(|| {
            format!(
                "no mirror of the Debian archive is configured in {}",
                etc_apt.display()
            )
        })
}

fn source_files(etc_apt: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(etc_apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    files.sort();
    files.insert(0, etc_apt.join("sources.list"));
    files
}

/// `deb [signed-by=KEY arch=…] URI suite component…`
fn parse_one_line(text: &str) -> Vec<Mirror> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mirror> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    let uri = rest.split_whitespace().next()?.to_owned();
    Some(Mirror { uri, signed_by })
}

/// Paragraphs of `Types:`, `URIs:`, `Signed-By:` … Only a key that is a file is taken over: an
/// embedded one has no place in a one-line source.
fn parse_deb822(text: &str) -> Vec<Mirror> {
    text.split("\n\n").flat_map(parse_paragraph).collect()
}

fn parse_paragraph(paragraph: &str) -> Vec<Mirror> {
    let field = |name: &str| {
        paragraph.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let is_binary =
        field("Types").is_some_and(|types| types.split_whitespace().any(|t| t == "deb"));
    let is_enabled = field("Enabled") != Some("no");
    let signed_by = field("Signed-By")
        .filter(|key| key.starts_with('/'))
        .map(str::to_owned);
    field("URIs")
        .filter(|_| is_binary && is_enabled)
        .into_iter()
        .flat_map(str::split_whitespace)
        .map(|uri| Mirror {
            uri: uri.to_owned(),
            signed_by: signed_by.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, signed_by: Option<&str>) -> Mirror {
        Mirror {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        }
    }

    #[test]
    fn one_line_sources_with_and_without_options() {
        let text = "# deb http://no.example/debian x main\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb http://a.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://b.example/debian/ bookworm main\n";
        let expected = [
            mirror("http://a.example/debian", None),
            mirror("https://b.example/debian/", Some("/k.gpg")),
        ];
        assert_eq!(parse_one_line(text), expected);
    }

    #[test]
    fn deb822_paragraphs_with_comments_and_a_disabled_one() {
        let text = "Types: deb\n# a remark\nURIs: http://a.example/debian\nSuites: bookworm\n\
                    Signed-By: /k.gpg\n\nTypes: deb-src\nURIs: http://b.example/debian\n\n\
                    Types: deb\nEnabled: no\nURIs: http://c.example/debian\n";
        assert_eq!(
            parse_deb822(text),
            [mirror("http://a.example/debian", Some("/k.gpg"))]
        );
    }

    #[test]
    fn security_archive_and_other_vendors_are_passed_over() {
        assert!(!mirror("http://a.example/debian-security", None).is_debian_archive());
        assert!(!mirror("https://a.example/node_20.x", None).is_debian_archive());
        assert!(mirror("http://a.example/debian/", None).is_debian_archive());
    }

    #[test]
    fn source_line_carries_the_key() {
        let line = mirror("http://a.example/debian", Some("/k.gpg")).one_line("trixie", "main");
        assert_eq!(
            line,
            "deb [signed-by=/k.gpg] http://a.example/debian trixie main\n"
        );
    }
}
