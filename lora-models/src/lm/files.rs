//! Files of a language model, whose output layer may be tied to the embedding of tokens.

use super::head::Ends;
use crate::checkpoint::{Checkpoint, LoadReport};
use crate::error::ModelError;
use crate::pretrained::LoadOptions;
use crate::weights::{Expectation, Leftover, Parameters, Weights, open_model, plan, read_model};
use lora_core::files::Directory;

/// An output layer that is the token embedding.
const TIED: Leftover = Leftover {
    reason: "tied to the token embedding",
    is: |name| name == "lm_head.weight",
    holds: None,
};

/// Names in the files of a family of language models.
pub(crate) struct LanguageModelFiles<'a> {
    pub ends: Ends,
    /// Prefix that the names of the decoder have in the file of a model with a head.
    pub prefix: &'static str,
    /// Tensor that every file has, and that is tied to no other.
    pub anchor: &'static str,
    /// Tensors that the model does not need.
    pub leftovers: &'a [Leftover],
}

impl LanguageModelFiles<'_> {
    /// Loads the model of a directory; `build` is told whether the output layer is tied. A layer that differs from the embedding
    /// to which the configuration ties it is used as it is, and a note says so.
    ///
    /// # Errors
    /// As [`Pretrained::load`](crate::Pretrained::load).
    pub(crate) fn load<M>(
        &self,
        dir: &Directory,
        tied: bool,
        head: [usize; 2],
        options: &LoadOptions,
        random: &mut dyn Weights,
        build: impl Fn(bool, &mut dyn Weights) -> Result<M, ModelError>,
    ) -> Result<(M, LoadReport), ModelError> {
        let (head_name, embedding) = (self.ends.head_weight(), self.ends.embedding_weight());
        let checkpoint = open_model(dir, self.anchor, self.prefix)?;
        let untied = tied && self.tie_is_wrong(&checkpoint)?;
        let tied = tied && !untied;
        let mut leftovers = self.leftovers.to_vec();
        leftovers.extend(tied.then_some(TIED));
        let expectation = Expectation {
            wanted: plan(|weights| build(tied, weights))?,
            prefix: self.prefix,
            anchor: self.anchor,
            may_be_fresh: &[],
            force_fresh: false,
            brought: &[],
            optional: &[(head_name.clone(), head.to_vec())],
            quantize: options.quantize(),
            floats: options.floats(),
            leftovers: &leftovers,
            // `safetensors.torch.save_model` keeps the first of two tied tensors by name: the output layer.
            tied: &[(embedding.as_str(), head_name.as_str())][..usize::from(tied)],
        };
        let build = |weights: &mut dyn Weights| build(tied, weights);
        let (model, mut report, _) = read_model(&checkpoint, &expectation, random, build)?;
        if untied {
            report.notes.push(format!(
                "`{head_name}` differs from `{embedding}`, to which `tie_word_embeddings` ties it: both are used as they are, as \
                 in transformers 5"
            ));
        }
        Ok((model, report))
    }

    /// Compares the output layer of a checkpoint with the token embedding that the configuration ties it to. Where they differ,
    /// transformers 5 does not tie them.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    fn tie_is_wrong(&self, checkpoint: &Checkpoint) -> Result<bool, ModelError> {
        let (head, embedding) = (&self.ends.head_weight(), &self.ends.embedding_weight());
        let bare = embedding.strip_prefix(self.prefix).unwrap_or(embedding);
        let mut names = [embedding, bare].into_iter();
        let (Some(embedding), true) = (
            names.find(|name| checkpoint.contains(name)),
            checkpoint.contains(head),
        ) else {
            return Ok(false);
        };
        if checkpoint.shape(embedding) != checkpoint.shape(head) {
            return Ok(false); // An error that names the shapes follows.
        }
        if let (Some(embedding), Some(head)) = (
            checkpoint.mapped_f32(embedding)?,
            checkpoint.mapped_f32(head)?,
        ) && embedding == head
        {
            return Ok(false);
        }
        Ok(checkpoint.read_f32(embedding)?.values != checkpoint.read_f32(head)?.values)
    }
}

/// Removes the output layer from an export if it equals the token embedding to which the configuration ties it, and returns true
/// if there is none.
///
/// # Errors
/// If a parameter cannot be read.
pub(crate) fn without_tied_head(
    parameters: &mut Parameters<'_>,
    ends: &Ends,
    ties: bool,
) -> Result<bool, ModelError> {
    let (head, embedding) = (&ends.head_weight(), &ends.embedding_weight());
    let tied = !parameters.has(head)
        || (ties && parameters.values(head)? == parameters.values(embedding)?);
    if tied {
        parameters.remove(head);
    }
    Ok(tied)
}
