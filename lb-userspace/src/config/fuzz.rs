//! Whatever the file holds, reading it ends in a model or in a report that can be drawn.

use proptest::prelude::*;

use super::tests::FULL;
use super::{Look, Overrides, parse};

fn survives(text: &str) {
    let overrides = Overrides {
        interfaces: vec![],
        node: "host".to_owned(),
    };
    match parse("lbd.toml", text, &overrides) {
        Ok(loaded) => assert_eq!(loaded.warnings.error_count(), 0),
        Err(report) => {
            assert!(
                report.error_count() > 0,
                "refused without a reason:\n{text}"
            );
            assert!(report.lines().all(|line| line.starts_with("lbd.toml:")));
            assert!(!report.render(Look::Plain).is_empty());
        }
    }
}

/// Splits at character boundaries only.
fn boundary(text: &str, at: usize) -> usize {
    let at = at % (text.len() + 1);
    (at..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}

proptest! {
    #[test]
    fn arbitrary_text_is_survived(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn text_of_toml_pieces_is_survived(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "[[service]]", "[service]", "[[service.backend]]", "[node]", "name", "vip", "port",
            "[[service.check]]", "[[service.backend.check]]", "type", "\"http\"", "\"mysql\"", "status",
            "headers", "command", "password", "interval", "\"2s\"", "role", "\"writer\"",
            "weight", "=", "\"", "'''", "10.0.0.1", "::1", "-1", "0x1F", "1e400", "inf", "true",
            "[", "]", "{", "}", ",", ".", "#", "\n", "\r\n", " ", "é", "\u{0}", "2026-01-01",
        ]), 0..60)) {
        survives(&pieces.concat());
    }

    #[test]
    fn a_mutated_file_is_survived(
        cut in any::<usize>(), length in 0_usize..20, insert in "[\\[\\]=\"'\n0-9a-z.:é]{0,8}",
    ) {
        let start = boundary(FULL, cut);
        let end = boundary(FULL, start.saturating_add(length).min(FULL.len()));
        survives(&format!("{}{insert}{}", &FULL[..start], &FULL[end.max(start)..]));
    }

    #[test]
    fn any_number_anywhere_is_survived(number in any::<i64>(), key in prop::sample::select(vec![
        "services = 10", "backends = 20", "ring_blocks = 32", "flows = 4096", "port = 80",
        "port = 8080", "weight = 7", "ring_slots = 65521",
    ])) {
        let name = key.split(' ').next().unwrap();
        survives(&FULL.replace(key, &format!("{name} = {number}")));
    }
}
