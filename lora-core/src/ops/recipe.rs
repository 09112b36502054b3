//! Outputs that a backward pass computes again instead of keeping them.
//!
//! Layer normalization keeps its input, from which its output follows by one pass over memory. An operation that reads this output in
//! its backward pass keeps the [`Recipe`] in its place: GPT-2 with adapters on its attention holds one tensor less per layer.

use burn::backend::Backend;
use burn::backend::autodiff::NodeId;
use burn::backend::tensor::FloatTensor;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Computation of the output of a node, from what the node's operation keeps anyway.
#[derive(Clone)]
pub(super) struct Recipe<B: Backend>(Arc<Inner<B>>);

struct Inner<B: Backend> {
    node: OnceLock<NodeId>,
    compute: Box<dyn Fn() -> FloatTensor<B> + Send + Sync>,
}

/// The recipes that exist, as `Weak<Inner<B>>` of their backend.
static RECIPES: LazyLock<Mutex<HashMap<NodeId, Box<dyn Any + Send>>>> =
    LazyLock::new(Mutex::default);

fn recipes() -> MutexGuard<'static, HashMap<NodeId, Box<dyn Any + Send>>> {
    RECIPES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Backend> Recipe<B> {
    /// Creates a recipe.
    pub(super) fn new(compute: impl Fn() -> FloatTensor<B> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            node: OnceLock::new(),
            compute: Box::new(compute),
        }))
    }

    /// Declares the node of the output. The recipe is found while a clone of it exists: the operation of the node keeps one until
    /// its backward pass.
    pub(super) fn declare(&self, node: NodeId) {
        if self.0.node.set(node).is_ok() {
            recipes().insert(node, Box::new(Arc::downgrade(&self.0)));
        }
    }

    /// Returns the recipe of a node's output, if there is one.
    pub(super) fn of(node: NodeId) -> Option<Self> {
        let recipes = recipes();
        let recipe = recipes.get(&node)?.downcast_ref::<Weak<Inner<B>>>()?;
        recipe.upgrade().map(Self)
    }

    /// Computes the output.
    pub(super) fn compute(&self) -> FloatTensor<B> {
        (self.0.compute)()
    }
}

impl<B: Backend> Drop for Inner<B> {
    fn drop(&mut self) {
        if let Some(node) = self.node.get() {
            recipes().remove(node);
        }
    }
}

impl<B: Backend> fmt::Debug for Recipe<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipe").field(&self.0.node).finish()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::TensorData;

    #[test]
    fn a_recipe_is_found_as_long_as_its_operation_keeps_it() {
        let node = NodeId::new();
        let tensor = FloatTensor::<Flex>::from_data(TensorData::from([2.0f32, 3.0]));
        let recipe = Recipe::<Flex>::new(move || Flex::float_neg(tensor.clone()));
        assert!(Recipe::<Flex>::of(node).is_none());
        recipe.declare(node);
        let found = Recipe::<Flex>::of(node).expect("a recipe");
        assert_eq!(
            found.compute().into_data().to_vec::<f32>().unwrap(),
            [-2.0, -3.0]
        );
        drop(recipe);
        assert!(Recipe::<Flex>::of(node).is_some());
        drop(found);
        assert!(Recipe::<Flex>::of(node).is_none() && !recipes().contains_key(&node));
    }
}
