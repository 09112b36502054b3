//! Mapping from distances between tokens to rows of their embedding.

use crate::encoder::Disentangled;
use std::ops::Range;

/// Mapping from distances to embeddings: one for each distance up to the largest, or logarithmic buckets for far ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distances {
    /// Half the number of embeddings, which is the row of distance 0.
    span: i64,
    max_distance: usize,
    buckets: Option<usize>,
}

impl Distances {
    pub(super) fn new(options: &Disentangled) -> Self {
        Self {
            span: options.span() as i64,
            max_distance: options.max_distance,
            buckets: options.buckets,
        }
    }

    /// Returns the number of embeddings.
    pub fn rows(&self) -> usize {
        2 * self.span as usize
    }

    /// Returns the row for a key that is `distance` tokens before the query.
    ///
    /// The row is the same for content to position and position to content: transformers computes the latter's from
    /// `-bucket(-distance)`, and a bucket has the sign of its distance.
    pub fn row(&self, distance: i64) -> usize {
        let row = self.bucket(distance) + self.span;
        row.clamp(0, 2 * self.span - 1) as usize
    }

    /// Returns the consecutive rows that sequences of this length need.
    pub fn reach(&self, seq: usize) -> Range<usize> {
        let farthest = seq.saturating_sub(1) as i64;
        self.row(-farthest)..self.row(farthest) + 1
    }

    /// Returns the bucket of a distance: the distance itself up to half the buckets, beyond that rounded up on a
    /// logarithmic scale that ends at the largest distance; in f32, as transformers computes it.
    fn bucket(&self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else {
            return distance;
        };
        let middle = buckets / 2;
        let far = distance.unsigned_abs();
        if far <= middle as u64 {
            return distance;
        }
        let ratio = far as f32 / middle as f32;
        let largest = ((self.max_distance - 1) as f64 / middle as f64) as f32;
        let steps = (ratio.ln() / largest.ln() * (middle - 1) as f32).ceil();
        distance.signum() * (steps + middle as f32) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deberta::tests::fixtures;
    use serde_json::Value;

    #[test]
    fn buckets_are_transformers() {
        let cases = fixtures::cases();
        let tables = cases["buckets"].as_array().unwrap();
        assert!(tables.len() > 4);
        for table in tables {
            let size = |key: &str| table[key].as_u64().unwrap() as usize;
            let distances = Distances {
                span: size("buckets") as i64,
                max_distance: size("max_distance"),
                buckets: Some(size("buckets")),
            };
            let expected = table["of_distance"].as_array().unwrap().iter();
            for (distance, expected) in expected.map(Value::as_i64).enumerate() {
                let (distance, expected) = (distance as i64, expected.unwrap());
                assert_eq!(
                    distances.bucket(distance),
                    expected,
                    "{distances:?} {distance}"
                );
                assert_eq!(distances.bucket(-distance), -expected);
            }
        }
    }

    #[test]
    fn rows_are_clamped_at_both_ends() {
        let exact = Distances {
            span: 4,
            max_distance: 4,
            buckets: None,
        };
        let rows: Vec<usize> = (-6..=6).map(|distance| exact.row(distance)).collect();
        assert_eq!(rows, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7]);
        assert_eq!((exact.reach(1), exact.reach(3)), (4..5, 2..7));
        assert_eq!(exact.reach(100), 0..exact.rows());
    }
}
