//! Operations under autodiff whose backward pass is a function.

use super::half_float::HalfFloat;
use super::precision::{mixed, with_mixed_precision};
use super::recipe::Recipe;
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use std::fmt::Debug;

/// Backward pass of an operation with `N` inputs: receives the gradient of the output, and the state that the forward
/// pass kept.
pub(super) type BackwardFn<B, S, const N: usize> =
    fn(&mut BackwardPass<'_, B, N>, FloatTensor<B>, S);

/// Inputs that the backward pass computes again.
type Recipes<B> = Vec<(NodeId, Recipe<B>)>;

/// An operation under autodiff, between the registration of its inputs and that of its output.
pub(super) struct Operation<B: Backend, C, S, const N: usize> {
    kind: OpsKind<Step<B, S, N>, B, (S, Recipes<B>), C, N>,
    recipes: Recipes<B>,
}

impl<B, C, S, const N: usize> Operation<B, C, S, N>
where
    B: Backend,
    C: CheckpointStrategy,
    S: Clone + Send + Debug + 'static,
{
    /// Registers the inputs that may have a gradient.
    pub(super) fn new(
        inputs: [&FloatTensor<Autodiff<B, C>>; N],
        backward: BackwardFn<B, S, N>,
    ) -> Self {
        let step = Step(backward, mixed()).prepare::<C>(inputs.map(|input| input.node()));
        Self {
            kind: step.compute_bound().stateful(),
            recipes: Vec::new(),
        }
    }

    /// Keeps an input, or its [`Recipe`], for the backward pass, which reads it by [`BackwardPass::saved`].
    pub(super) fn save(&mut self, input: &FloatTensor<Autodiff<B, C>>) -> NodeId {
        let id = input.id();
        if let OpsKind::Tracked(prepared) = &mut self.kind {
            if let Some(recipe) = Recipe::of(id) {
                self.recipes.push((id, recipe));
            } else {
                prepared.checkpoint(input);
            }
        }
        id
    }

    /// Registers the output, and the state for the backward pass if an input has a gradient.
    pub(super) fn finish(self, state: S, output: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
        match self.kind {
            OpsKind::Tracked(prepared) => prepared.finish((state, self.recipes), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

/// A running backward pass of an operation with `N` inputs.
pub(super) struct BackwardPass<'a, B: Backend, const N: usize> {
    inputs: [Option<NodeId>; N],
    gradients: &'a mut Gradients,
    checkpointer: &'a mut Checkpointer,
    recipes: Recipes<B>,
}

impl<B: Backend, const N: usize> BackwardPass<'_, B, N> {
    /// Returns true if input `index` has a gradient.
    pub(super) fn needs(&self, index: usize) -> bool {
        self.inputs[index].is_some()
    }

    /// Returns an input that [`Operation::save`] has kept.
    pub(super) fn saved(&mut self, id: NodeId) -> FloatTensor<B> {
        match self.recipes.iter().find(|(node, _)| *node == id) {
            Some((_, recipe)) => recipe.compute(),
            None => self.checkpointer.retrieve_node_output(id),
        }
    }

    /// Registers the gradient of input `index`, which is computed only if the input has one.
    pub(super) fn register(&mut self, index: usize, gradient: impl FnOnce() -> FloatTensor<B>) {
        if let Some(id) = self.inputs[index] {
            self.gradients.register::<B>(id, gradient());
        }
    }
}

/// Backward pass, and the mixed precision of the forward pass.
#[derive(Debug)]
struct Step<B: Backend, S, const N: usize>(BackwardFn<B, S, N>, Option<HalfFloat>);

impl<B: Backend, S, const N: usize> Backward<B, N> for Step<B, S, N>
where
    S: Clone + Send + Debug + 'static,
{
    type State = (S, Recipes<B>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (state, recipes) = ops.state;
        let mut pass = BackwardPass {
            inputs: ops.parents.map(|node| Some(node?.id)),
            gradients,
            checkpointer,
            recipes,
        };
        with_mixed_precision(self.1, || (self.0)(&mut pass, gradient, state));
    }
}
