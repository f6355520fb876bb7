//! What somebody probably meant who misspelt a word.

/// Longer words are nobody's misspelling; comparing two words takes as many steps as the product of their lengths.
const WORD_BYTES_MAX: usize = 64;

/// How many characters must be added, taken out or replaced to make `b` of `a`.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, of_a) in a.chars().enumerate() {
        let mut corner = above;
        row[0] = above + 1;
        for (at, of_b) in b.iter().enumerate() {
            let replaced = corner + usize::from(of_a != *of_b);
            corner = row[at + 1];
            row[at + 1] = replaced.min(corner + 1).min(row[at] + 1);
        }
    }
    row[b.len()]
}

/// The one of `known` that is at most a third of its letters away from `word` (two swapped letters count as two), the nearest
/// if there are several.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let close = known.into_iter().filter_map(|known| {
        let edits = distance(&word, known);
        (edits <= (known.len() / 3).clamp(1, 3)).then_some((edits, known))
    });
    close.min().map(|(_, known)| known)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_the_least_number_of_edits() {
        assert_eq!(["", "ab", "abc", "kitten"].map(|a| distance(a, "sitting")), [7, 7, 7, 3]);
    }

    #[test]
    fn the_nearest_word_is_found_when_one_is_near() {
        let known = ["enable", "exclude", "keep", "freeze-budget"];
        for (word, expected) in [
            ("enabel", Some("enable")),
            ("enbale", Some("enable")),
            ("enabled", Some("enable")),
            ("ENABLE", Some("enable")),
            ("exlude", Some("exclude")),
            ("kep", Some("keep")),
            ("freeze_budgets", Some("freeze-budget")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"enable".repeat(1000), known), None);
    }
}
