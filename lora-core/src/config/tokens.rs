//! Single rows of an embedding that are trained: [`TrainableTokens`].

use crate::error::LoraError;
use std::collections::HashSet;

/// Rows of an embedding, or of an output layer over the vocabulary, that are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainableTokens {
    /// Name of the module: its path or the end of it. `None` for the input embedding of the model.
    pub module: Option<String>,
    /// Ids of the tokens, in the order of their rows in files.
    pub ids: Vec<usize>,
}

impl TrainableTokens {
    /// Selects rows of the model's input embedding.
    pub fn of_input(ids: impl IntoIterator<Item = usize>) -> Self {
        Self {
            module: None,
            ids: ids.into_iter().collect(),
        }
    }

    /// Checks the ids as far as that is possible without a model.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] if there is none, or one twice.
    pub(super) fn validate(&self) -> Result<(), LoraError> {
        let mut seen = HashSet::new();
        let (found, expected) = match self.ids.iter().find(|id| !seen.insert(**id)) {
            Some(twice) => (format!("{twice} twice"), "each token once"),
            None if self.ids.is_empty() => ("empty".into(), "at least one token"),
            None => return Ok(()),
        };
        Err(LoraError::invalid_option("token_indices", found, expected))
    }
}
