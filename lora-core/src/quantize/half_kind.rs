//! Properties of a weight in 16 bits, which its parameters must tell: [`HalfKind`].

use crate::ops::HalfFloat;

/// Properties of a weight in 16 bits, which its parameters must tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfKind {
    pub half: HalfFloat,
    /// True if the values are in the order of the transpose.
    pub transposed: bool,
    /// True if the values were rounded when they were packed.
    pub rounded: bool,
}

impl HalfKind {
    /// Returns a different length from 1 to 8 for each kind.
    pub fn length(self) -> usize {
        let half = usize::from(self.half == HalfFloat::Bf16);
        1 + half + 2 * usize::from(self.transposed) + 4 * usize::from(self.rounded)
    }

    /// Returns the kind of a length.
    pub fn from_length(length: usize) -> Option<Self> {
        let index = length.checked_sub(1).filter(|index| *index < 8)?;
        Some(Self {
            half: HalfFloat::ALL[index % 2],
            transposed: index & 2 != 0,
            rounded: index & 4 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_length_of_its_own() {
        for length in 1..=8 {
            assert_eq!(HalfKind::from_length(length).unwrap().length(), length);
        }
        assert!(HalfKind::from_length(0).is_none() && HalfKind::from_length(9).is_none());
    }
}
