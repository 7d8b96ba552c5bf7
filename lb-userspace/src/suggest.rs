//! "Did you mean …": the known word closest to a misspelt one.

/// The known word closest to `word`, if it is near enough to be a slip of the hand: at most one
/// edit in three characters, and never more than three.
pub fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
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
    use super::closest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["address", "name", "port", "weight"];
        assert_eq!(closest("adress", known), Some("address"));
        assert_eq!(closest("wieght", known), Some("weight"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("", known), None);
    }
}
