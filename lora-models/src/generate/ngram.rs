//! Rule against repeated n-grams.

/// Returns the tokens that would complete an n-gram of `size` tokens which `history` already contains; none for size 0.
///
/// The rule is transformers' `NoRepeatNGramLogitsProcessor`, except that padding is not part of the history.
pub(super) fn banned(history: &[u32], size: usize) -> Vec<u32> {
    if size == 0 || history.len() + 1 < size {
        return Vec::new();
    }
    let ending = &history[history.len() + 1 - size..];
    history
        .windows(size)
        .filter(|window| window.starts_with(ending))
        .filter_map(|window| window.last().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_same_tokens_is_banned() {
        assert_eq!(banned(&[1, 2, 3, 1, 2, 4, 1, 2], 3), [3, 4]);
        assert_eq!(banned(&[7, 7], 2), [7]);
        assert_eq!(banned(&[1, 2, 3], 1), [1, 2, 3]);
        assert!(banned(&[1, 2, 3, 4], 2).is_empty());
    }

    #[test]
    fn no_rule_and_a_short_history_ban_nothing() {
        assert!(banned(&[1, 1, 1], 0).is_empty());
        assert!(banned(&[1], 3).is_empty());
        assert!(banned(&[], 2).is_empty());
        assert!(banned(&[5, 5], 3).is_empty());
    }
}
