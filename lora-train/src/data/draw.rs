//! Records drawn by a seed, to train on little data.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Draws at most `most` of the items, and keeps them in their order; all for `None`.
///
/// With one seed, the items drawn for a smaller number are among those for a larger one.
///
/// # Examples
/// ```
/// use lora_train::data::draw;
///
/// let few = draw((0..100).collect(), Some(3), 42);
/// let more = draw((0..100).collect(), Some(5), 42);
/// assert!(few.len() == 3 && few.iter().all(|item| more.contains(item)));
/// assert_ne!(few, draw((0..100).collect(), Some(3), 43));
/// assert_eq!(draw(vec![1, 2], Some(5), 42), [1, 2]);
/// ```
pub fn draw<T>(items: Vec<T>, most: Option<usize>, seed: u64) -> Vec<T> {
    let drawn = drawn(items.len(), most, seed);
    let items = items.into_iter().zip(drawn);
    items
        .filter_map(|(item, is_drawn)| is_drawn.then_some(item))
        .collect()
}

/// Returns, for each of `count` items, whether [`draw`] draws it.
pub(super) fn drawn(count: usize, most: Option<usize>, seed: u64) -> Vec<bool> {
    let Some(most) = most.filter(|most| *most < count) else {
        return vec![true; count];
    };
    let mut is_drawn = vec![false; count];
    for at in first_of_shuffle(count, most, &mut StdRng::seed_from_u64(seed)) {
        is_drawn[at] = true;
    }
    is_drawn
}

/// Draws `most` of the numbers below `count`, at most as many as there are: the beginning of Fisher and Yates' shuffle.
pub(super) fn first_of_shuffle(count: usize, most: usize, rng: &mut StdRng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in 0..most.min(count) {
        let other = rng.random_range(at..count);
        order.swap(at, other);
    }
    order.truncate(most);
    order
}
