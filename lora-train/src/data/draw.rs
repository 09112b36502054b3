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
    let count = items.len();
    let Some(most) = most.filter(|most| *most < count) else {
        return items;
    };
    let mut rng = StdRng::seed_from_u64(seed);
    // The beginning of Fisher and Yates' shuffle.
    let mut order: Vec<usize> = (0..count).collect();
    for at in 0..most {
        let other = rng.random_range(at..count);
        order.swap(at, other);
    }
    let mut is_drawn = vec![false; count];
    for &at in &order[..most] {
        is_drawn[at] = true;
    }
    let drawn = items.into_iter().zip(is_drawn);
    drawn
        .filter_map(|(item, is_drawn)| is_drawn.then_some(item))
        .collect()
}
