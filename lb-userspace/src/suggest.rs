//! "Did you mean …": the known word closest to a misspelt one.

use lb_common::limits::NAME_LEN_MAX;

/// The known word closest to `word`, if it is near enough to be a slip of the hand: at most one
/// edit in three characters, and never more than three. Words longer than any name are no slips, and
/// would take their time: the work grows with the length of both words.
pub fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > NAME_LEN_MAX {
        return None;
    }
    let edits_max = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{NAME_LEN_MAX, closest};

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["address", "name", "port", "weight"];
        assert_eq!(closest("adress", known), Some("address"));
        assert_eq!(closest("wieght", known), Some("weight"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("", known), None);
    }

    #[test]
    fn nothing_is_close_to_what_is_too_long_for_a_name() {
        let longest = "x".repeat(NAME_LEN_MAX);
        let too_long = format!("{longest}x");
        assert_eq!(closest(&longest, [&*longest]), Some(&*longest));
        assert_eq!(closest(&too_long, [&*longest]), None);
    }
}
