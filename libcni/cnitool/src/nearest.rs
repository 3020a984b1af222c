//! "Did you mean": the known word that is nearest to what was written.

/// The nearest of `known`, if it is near enough to be meant: a third of its letters may differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = known.into_iter().map(|known| (distance(&word, &known.to_lowercase()), known));
    near.filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).min_by_key(|near| near.0).map(|near| near.1)
}

/// `; did you mean "X"?`, or nothing.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|known| format!("; did you mean {known:?}?")).unwrap_or_default()
}

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour (the "optimal string
/// alignment" distance).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let cell = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let replaced = cell(&row, j) + usize::from(a != b);
            let mut best = replaced.min(cell(&row, j + 1) + 1).min(cell(&next, j) + 1);
            let swapped = i > 0 && j > 0 && left.get(i - 1) == Some(b) && right.get(j - 1) == Some(a);
            if swapped {
                best = best.min(cell(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    cell(&row, right.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("chekc", "check", 1),
            ("abcd", "badc", 2),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn what_is_near_enough() {
        let known = ["bridge", "isGateway", "ipMasq", "mtu"];
        assert_eq!(nearest("isGatway", known), Some("isGateway"));
        assert_eq!(nearest("ipMask", known), Some("ipMasq"));
        assert_eq!(nearest("IPMASQ2", known), Some("ipMasq"));
        assert_eq!(nearest("addIf", known), None);
        assert_eq!(hint("mut", ["bridge"]), "");
        assert_eq!(hint("brigde", ["bridge"]), "; did you mean \"bridge\"?");
    }
}
