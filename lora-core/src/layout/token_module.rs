//! A module of which single rows are trained.

/// A matrix over the vocabulary of which the rows of some tokens are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenModule {
    /// Name of the module.
    pub module: String,
    /// Path of its weight.
    pub parameter: String,
    /// Ids of the tokens.
    pub ids: Vec<usize>,
    /// Shape of the weight: `[vocabulary, d]`, or `[d, vocabulary]` with [`by_column`](Self::by_column).
    pub shape: [usize; 2],
    /// True if a token has a column of the weight: the output layer, where it is not tied to an embedding.
    pub by_column: bool,
}

impl TokenModule {
    /// Suffix of the tensor's name in files.
    pub(crate) const SUFFIX: &str = ".token_adapter.trainable_tokens_delta";

    /// Returns the name in files, without a prefix.
    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.module, Self::SUFFIX)
    }

    /// Returns the shape in files, `[tokens, d]`.
    pub(crate) fn rows_shape(&self) -> [usize; 2] {
        let [rows, columns] = self.shape;
        [self.ids.len(), if self.by_column { rows } else { columns }]
    }

    /// Returns the number of trained values.
    pub(crate) fn elements(&self) -> usize {
        self.rows_shape().iter().product()
    }

    /// Returns the rows of the tokens out of all values of the weight, row-major.
    pub(crate) fn rows_of(&self, weight: &[f32]) -> Vec<f32> {
        let [rows, columns] = self.shape;
        let row = |&id: &usize| -> Vec<f32> {
            if self.by_column {
                (0..rows).map(|row| weight[row * columns + id]).collect()
            } else {
                weight[id * columns..(id + 1) * columns].to_vec()
            }
        };
        self.ids.iter().flat_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_tokens_in_either_layout() {
        let tokens = |by_column: bool, shape| TokenModule {
            module: "wte".into(),
            parameter: "wte.weight".into(),
            ids: vec![2, 0],
            shape,
            by_column,
        };
        let embedding = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
        let rows = tokens(false, [3, 2]);
        assert_eq!(rows.rows_of(&embedding), [20.0, 21.0, 0.0, 1.0]);
        let head = [0.0, 10.0, 20.0, 1.0, 11.0, 21.0];
        let columns = tokens(true, [2, 3]);
        assert_eq!(columns.rows_of(&head), rows.rows_of(&embedding));
        assert_eq!((rows.rows_shape(), columns.rows_shape()), ([2, 2], [2, 2]));
    }
}
