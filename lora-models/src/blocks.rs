//! Models as a chain of blocks, for checkpointed activations.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// A model that runs block by block. A forward pass can then keep the inputs of the blocks alone, and the backward pass
/// computes the other activations again (Chen et al. 2016, arXiv 1604.06174).
///
/// The hidden states of an input are `finish(block(n - 1, … block(0, embed(input)) …))`.
///
/// # Shapes
/// Hidden states are `[batch, seq, d_model]` everywhere.
pub trait Blocks: Module {
    /// Batch that the model reads.
    type Input;
    /// State that all blocks share beside the hidden states, such as the attention mask.
    type Shared;

    /// Returns the number of blocks.
    fn blocks(&self) -> usize;

    /// Returns the hidden states before the first block.
    fn embed(&self, input: &Self::Input) -> Tensor<3>;

    /// Computes the state that all blocks share. It may depend on trainable weights.
    fn shared(&self, input: &Self::Input) -> Self::Shared;

    /// Computes the state that all blocks share for an input whose state is known already: parts that depend on no trainable weight
    /// may be taken from it.
    fn shared_again(&self, input: &Self::Input, _before: &Self::Shared) -> Self::Shared {
        self.shared(input)
    }

    /// Applies block `index` to the hidden states before it.
    fn block(&self, index: usize, x: Tensor<3>, shared: &Self::Shared) -> Tensor<3>;

    /// Computes the final hidden states from those after the last block.
    fn finish(&self, x: Tensor<3>) -> Tensor<3>;

    /// Returns the index of the first block that a backward pass reaches: `None` if nothing below
    /// [`finish`](Self::finish) is trainable, 0 if the embeddings are.
    fn first_trained(&self) -> Option<usize>;
}

/// Returns the index of the first block with a trainable parameter; 0 if `others`, before or beside the blocks, have one.
pub(crate) fn first_trained<M: Module>(blocks: &[M], others: bool) -> Option<usize> {
    if others {
        Some(0)
    } else {
        blocks.iter().position(trains)
    }
}

/// Returns true if any parameter of a module is trainable.
pub(crate) fn trains<M: Module>(module: &M) -> bool {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.is_require_grad();
        }
    }
    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}
