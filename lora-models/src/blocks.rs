//! A model as a chain of blocks, each of which can be computed again.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// A model block by block: what is kept of a forward pass can then be the inputs of the blocks alone, and the rest is
/// made again in the backward pass (Chen et al. 2016, arXiv 1604.06174).
///
/// The hidden states of an input are `finish(block(n - 1, … block(0, embed(input)) …))`.
///
/// # Shapes
/// Hidden states are `[batch, seq, d_model]` everywhere.
pub trait Blocks: Module {
    /// A batch as the model reads it.
    type Input;
    /// What all blocks look at beside the hidden states.
    type Shared;

    /// Number of blocks.
    fn blocks(&self) -> usize;

    /// The hidden states before the first block.
    fn embed(&self, input: &Self::Input) -> Tensor<3>;

    /// What all blocks look at. It may depend on weights that train.
    fn shared(&self, input: &Self::Input) -> Self::Shared;

    /// The hidden states after block `index` of those before it.
    fn block(&self, index: usize, x: Tensor<3>, shared: &Self::Shared) -> Tensor<3>;

    /// The hidden states after all, of those after the last block.
    fn finish(&self, x: Tensor<3>) -> Tensor<3>;

    /// The first block that has anything to do in a backward pass: `None` where nothing below
    /// [`finish`](Self::finish) trains, 0 where the embeddings do.
    fn first_trained(&self) -> Option<usize>;
}

/// The first block that has something to train, where not even what is before and beside all blocks has.
pub(crate) fn first_trained<M: Module>(blocks: &[M], others: bool) -> Option<usize> {
    match others {
        true => Some(0),
        false => blocks.iter().position(trains),
    }
}

/// Whether any parameter of a module trains.
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
