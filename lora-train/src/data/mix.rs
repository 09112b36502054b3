//! Mix of the examples of several files in given shares.

use rand::rngs::StdRng;

use super::draw::first_of_shuffle;
use crate::error::TrainError;

/// Mix of the examples of several files, which lie one after the other: in each epoch as many of each file as its share says, drawn anew.
///
/// An epoch is as long as it can be without an example twice: it ends where the first file runs out, as
/// `interleave_datasets(…, stopping_strategy="first_exhausted")` of the `datasets` library does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<Part>);

/// Examples of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Index of the first.
    start: usize,
    /// Number of all.
    examples: usize,
    /// Number of those in an epoch.
    drawn: usize,
}

impl Mix {
    /// Creates the mix of files with so many examples each. The shares, as many, are above 0 and add up to 1.
    ///
    /// # Errors
    /// [`TrainError::Config`] if a file has no example, or its share is too small for one.
    ///
    /// # Examples
    /// ```
    /// use lora_train::data::Mix;
    ///
    /// # fn main() -> Result<(), lora_train::TrainError> {
    /// // 70 are all of the first file, to which 30 belong.
    /// let mix = Mix::new(&[70, 1000], &[0.7, 0.3])?;
    /// assert_eq!(mix.drawn().collect::<Vec<_>>(), [70, 30]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(examples: &[usize], shares: &[f64]) -> Result<Self, TrainError> {
        let pairs = || examples.iter().zip(shares);
        let lengths = pairs().map(|(&examples, share)| examples as f64 / share);
        let length = lengths.fold(f64::INFINITY, f64::min);
        let mut start = 0;
        let mut parts = Vec::with_capacity(examples.len());
        for (at, (&examples, share)) in pairs().enumerate() {
            let drawn = ((length * share).round() as usize).min(examples);
            if drawn == 0 {
                let number = at + 1;
                let message = format!(
                    "file {number} of the mix has {examples} examples and the share {share:.4}, which gives it none in an epoch of \
                     {length:.0}; give it a larger share, or more data to the others"
                );
                return Err(TrainError::config("data", message));
            }
            parts.push(Part {
                start,
                examples,
                drawn,
            });
            start += examples;
        }
        Ok(Self(parts))
    }

    /// Returns the number of examples of each file in an epoch.
    pub fn drawn(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|part| part.drawn)
    }

    /// Returns the number of examples in an epoch.
    pub fn len(&self) -> usize {
        self.drawn().sum()
    }

    /// Returns true if no file is mixed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Draws the examples of an epoch, and returns their indices in order.
    pub(super) fn draw(&self, rng: &mut StdRng) -> Vec<usize> {
        let mut indices = Vec::with_capacity(self.len());
        for part in &self.0 {
            let mut of_file = first_of_shuffle(part.examples, part.drawn, rng);
            of_file.sort_unstable();
            indices.extend(of_file.into_iter().map(|index| part.start + index));
        }
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn an_epoch_ends_where_the_first_file_runs_out() {
        for (examples, shares, expected) in [
            (&[100, 100][..], &[0.5, 0.5][..], &[100, 100][..]),
            (&[100, 50], &[0.8, 0.2], &[100, 25]),
            (&[1000, 10, 500], &[0.6, 0.1, 0.3], &[60, 10, 30]),
            (&[3], &[1.0], &[3]),
        ] {
            let mix = Mix::new(examples, shares).unwrap();
            assert_eq!(mix.drawn().collect::<Vec<_>>(), expected);
        }
        let message = Mix::new(&[3, 1000], &[0.999, 0.001]).unwrap_err();
        assert!(
            message.to_string().contains("file 2 of the mix"),
            "{message}"
        );
        assert!(Mix::new(&[3, 0], &[0.5, 0.5]).is_err());
    }

    #[test]
    fn a_draw_has_no_example_twice_and_as_many_of_each_file_as_it_should() {
        let mix = Mix::new(&[50, 7], &[0.7, 0.3]).unwrap();
        let expected: Vec<usize> = mix.drawn().collect();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let drawn = mix.draw(&mut StdRng::seed_from_u64(seed));
            assert!(drawn.is_sorted_by(|a, b| a < b));
            let of_first = drawn.iter().filter(|&&index| index < 50).count();
            assert_eq!([of_first, drawn.len() - of_first], expected[..]);
            assert!(drawn.iter().all(|&index| index < 57));
            seen.extend(drawn);
        }
        assert_eq!(seen.len(), 57);
    }
}
