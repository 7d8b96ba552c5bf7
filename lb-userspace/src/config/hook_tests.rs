//! `[hooks]`.

use super::tests::{mistake, model};
use crate::model::{HOOK_TIMEOUT_DEFAULT_S, Hook};

fn hooks(lines: &str) -> String {
    format!("[hooks]\n{lines}\n")
}

#[test]
fn a_hook_is_a_program_with_or_without_arguments() {
    let on_change = |lines: &str| model(&hooks(lines)).hooks.on_change;
    assert_eq!(model("").hooks.on_change, None);
    assert_eq!(on_change("timeout = \"3s\""), None);
    let plain = on_change("on_change = \"/bin/true\"").unwrap();
    let expected = Hook {
        command: vec!["/bin/true".to_owned()],
        timeout_s: HOOK_TIMEOUT_DEFAULT_S,
    };
    assert_eq!(plain, expected);
    let lines = "on_change = [\"/bin/sh\", \"-c\", \"exit 1\"]\ntimeout = \"3s\"";
    let with_arguments = on_change(lines).unwrap();
    assert_eq!(with_arguments.command, ["/bin/sh", "-c", "exit 1"]);
    assert_eq!(with_arguments.timeout_s, 3);
}

#[test]
fn what_cannot_be_run_is_refused_at_its_place() {
    for (lines, expected) in [
        (
            "on_change = \"/etc/passwd\"",
            "2:13: error: on_change /etc/passwd is not executable (name a program: no shell is in between)",
        ),
        (
            "on_change = [\"notify\", \"x\"]",
            "2:13: error: on_change \"notify\" is no absolute path (begin it with a slash: lbd may be \
             started in any directory)",
        ),
        (
            "on_change = \"/no/such\"",
            "2:13: error: cannot read on_change /no/such: No such file or directory (os error 2) (lbd must \
             be able to read it)",
        ),
        (
            "on_change = []",
            "2:13: error: `on_change` is a list, not a program (write it like `on_change = \
             \"/usr/local/bin/on-change\"`)",
        ),
        (
            "timeout = \"301s\"",
            "2:11: error: hooks: timeout 301 is not in 1 to 300 seconds",
        ),
        (
            "onchange = \"/bin/true\"",
            "2:1: error: unknown key `onchange` (did you mean `on_change`?)",
        ),
    ] {
        assert_eq!(mistake(&hooks(lines)), expected);
    }
}
