use lb_common::limits::NAME_LEN_MAX;

use super::Findings;
use crate::model::draft::Field;
use crate::model::problem::{Kind, Place, Problem};

/// Bytes in an interface's name: the kernel's `IFNAMSIZ` less the final NUL.
const INTERFACE_NAME_LEN_MAX: usize = 15;

/// A name of ours: short, and plain in a URL, a metric's label, a shell and a table.
pub(super) fn check(name: &Field<String>, place: Place, subject: &str, findings: &mut Findings) {
    let Some(name) = name.given() else { return };
    if let Some(message) = fault(name) {
        let help = format!(
            "a name is 1 to {NAME_LEN_MAX} of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        );
        findings.push(Problem::new(Kind::Invalid, place, subject, message).help(help));
    }
}

fn fault(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        return Some("the name is empty".to_owned());
    }
    if name.len() > NAME_LEN_MAX {
        return Some(format!("the name has {} characters", name.chars().count()));
    }
    if let Some(c) = name.chars().find(|c| !is_plain(*c)) {
        return Some(format!("the name holds {c:?}"));
    }
    (!name.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .then(|| "the name begins with a sign".to_owned())
}

/// A network interface's name, as far as the kernel would accept one (`dev_valid_name`).
pub(super) fn check_interface(name: &str, place: Place, subject: &str, findings: &mut Findings) {
    let message = if name.is_empty() {
        "the name is empty"
    } else if name.len() > INTERFACE_NAME_LEN_MAX {
        "the name is longer than the 15 bytes that Linux allows"
    } else if matches!(name, "." | "..")
        || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
    {
        "no interface can have this name"
    } else {
        return;
    };
    let help = "`ip -brief link` lists the interfaces";
    findings.push(Problem::new(Kind::Invalid, place, subject, message).help(help));
}
