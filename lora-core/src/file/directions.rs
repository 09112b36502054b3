//! Singular directions of an adapter's update, and the updates of the parts of a fused projection.

use super::adapter::{StoredFactors, StoredTensor};
use crate::spectrum::{Directions, Singular};

impl StoredFactors {
    /// Returns the singular directions of the update `scale · B A`; `None` if it is zero or not finite.
    pub fn singular(&self) -> Option<Singular> {
        Singular::of_product(
            self.b.matrix().as_ref(),
            self.a.matrix().as_ref(),
            self.scale,
        )
    }

    /// Returns the right-singular directions of `A`, in the space of the inputs; `None` if it is zero or not finite.
    pub fn input_directions(&self) -> Option<Directions> {
        Directions::spanning(self.a.matrix().transpose())
    }

    /// Returns the left-singular directions of `B`, in the space of the outputs; `None` if it is zero or not finite.
    pub fn output_directions(&self) -> Option<Directions> {
        Directions::spanning(self.b.matrix().as_ref())
    }

    /// Returns the factors of the update of some outputs: these rows of `B`, and the ranks that reach them. `None` if none does
    /// while others are reached: the outputs then have no adapter.
    ///
    /// An adapter on slices of a fused projection has a block-shaped `B`, so that each slice gets its own ranks. Magnitudes and biases
    /// are left out.
    ///
    /// # Panics
    /// If `B` has fewer rows.
    pub fn part(&self, rows: &[usize]) -> Option<Self> {
        let (rank, [_, d_in]) = (self.rank(), self.shape());
        let value = |row: usize, k: usize| self.b.values[row * rank + k];
        let reaches = |k: &usize| rows.iter().any(|&row| value(row, *k) != 0.0);
        let mut ranks: Vec<usize> = (0..rank).filter(reaches).collect();
        if ranks.is_empty() {
            if self.b.values.iter().any(|&value| value != 0.0) {
                return None;
            }
            // Not trained yet.
            ranks = (0..rank).collect();
        }
        let a = ranks
            .iter()
            .flat_map(|k| &self.a.values[k * d_in..][..d_in]);
        let b = rows
            .iter()
            .flat_map(|&row| ranks.iter().map(move |&k| value(row, k)));
        Some(Self {
            kind: self.kind,
            a: StoredTensor::new([ranks.len(), d_in], a.copied().collect()),
            b: StoredTensor::new([rows.len(), ranks.len()], b.collect()),
            scale: self.scale,
            magnitude: None,
            bias: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayerKind;

    #[test]
    fn a_part_has_the_ranks_that_reach_it() {
        // Two slices of rank 1 in a projection of three parts with two outputs each: the second part has no adapter.
        let factors = StoredFactors {
            kind: LayerKind::Linear,
            a: StoredTensor::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            b: StoredTensor::new(
                [6, 2],
                vec![7.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 1.0],
            ),
            scale: 0.5,
            magnitude: None,
            bias: None,
        };
        let last = factors.part(&[4, 5]).unwrap();
        assert_eq!(
            (last.a.values, last.b.values),
            (vec![4.0, 5.0, 6.0], vec![9.0, 1.0])
        );
        assert!(factors.part(&[2, 3]).is_none());
        let untrained = StoredFactors {
            b: StoredTensor::new([6, 2], vec![0.0; 12]),
            ..factors
        };
        assert_eq!(untrained.part(&[2, 3]).unwrap().rank(), 2);
        assert!(untrained.singular().is_none());
        assert_eq!(untrained.input_directions().unwrap().count(), 2);
    }
}
