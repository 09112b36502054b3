//! A parameter that is saved beside the factors.

/// A fully trained parameter, saved with the adapter: one of PEFT's `modules_to_save`, or a bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedParameter {
    /// Path in the module.
    pub parameter: String,
    /// Name in files.
    pub name: String,
    /// Shape in the module.
    pub shape: Vec<usize>,
    /// True if files hold the transpose: the weight of a linear layer.
    pub transposed: bool,
}

impl SavedParameter {
    /// Returns the shape in files.
    pub(crate) fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Returns the number of values.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_weights_are_transposed_in_files() {
        let saved = |transposed: bool| SavedParameter {
            parameter: "here.classifier.weight".into(),
            name: "classifier.weight".into(),
            shape: vec![3, 2],
            transposed,
        };
        assert_eq!(saved(true).file_shape(), [2, 3]);
        assert_eq!(saved(false).file_shape(), [3, 2]);
    }
}
