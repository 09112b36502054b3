//! Module of a prefix.

use super::kind::PrefixKind;
use super::shape::PrefixShape;
use crate::weights::param;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

/// Virtual tokens that precede every text.
#[derive(Module, Debug)]
pub struct Prefix {
    /// Trained values: keys and values, `[tokens, layers · 2 · d_model]`, for each layer the keys, then the values; embeddings,
    /// `[tokens, d_model]`; or activations, `[tokens, layers · d_model]`.
    pub embeddings: Param<Tensor<2>>,
    #[module(skip)]
    kind: PrefixKind,
    #[module(skip)]
    shape: PrefixShape,
}

/// Keys and values of a prefix in one layer, equal for every row of a batch.
#[derive(Clone, Debug)]
pub struct PrefixLayer {
    /// Keys, `[1, heads, tokens, d_head]`.
    pub keys: Tensor<4>,
    /// Values, `[1, heads, tokens, d_head]`.
    pub values: Tensor<4>,
}

impl PrefixLayer {
    /// Computes the keys and values of virtual tokens in all layers from `x`, what enters the first one: `keys_and_values` returns
    /// those of a layer, and `forward` what enters the next one.
    pub(crate) fn through<L>(
        layers: &[L],
        mut x: Tensor<3>,
        keys_and_values: impl Fn(&L, Tensor<3>) -> Self,
        forward: impl Fn(usize, &L, Tensor<3>) -> Tensor<3>,
    ) -> Vec<Self> {
        let last = layers.len() - 1;
        let mut all = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            all.push(keys_and_values(layer, x.clone()));
            if index < last {
                x = forward(index, layer, x);
            }
        }
        all
    }

    /// Prepends the keys and values of the virtual tokens to those of a text: `[rows, heads, tokens + n, d_head]`.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[rows, heads, n, d_head]`
    pub fn before(&self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let join = |own: &Tensor<4>, text: Tensor<4>| {
            let [_, heads, tokens, d_head] = own.dims();
            let own = own.clone().expand([text.dims()[0], heads, tokens, d_head]);
            Tensor::cat(vec![own, text], 2)
        };
        (join(&self.keys, keys), join(&self.values, values))
    }
}

impl Prefix {
    /// Creates a trainable prefix with these values.
    pub(super) fn new(
        values: Vec<f32>,
        tokens: usize,
        kind: PrefixKind,
        shape: PrefixShape,
        device: &Device,
    ) -> Self {
        let values = TensorData::new(values, [tokens, kind.width(&shape)]);
        Self {
            embeddings: param(kind.path(), values, device),
            kind,
            shape,
        }
    }

    /// Returns what is trained of the virtual tokens.
    pub fn kind(&self) -> PrefixKind {
        self.kind
    }

    /// Returns the number of virtual tokens.
    pub fn tokens(&self) -> usize {
        self.embeddings.lazy_shape()[0]
    }

    /// Returns the number of values.
    pub fn parameters(&self) -> usize {
        self.embeddings.lazy_shape().num_elements()
    }

    /// Returns the sizes of the model that the prefix is for.
    pub fn shape(&self) -> &PrefixShape {
        &self.shape
    }

    /// Describes the prefix in a line.
    pub fn summary(&self) -> String {
        let (tokens, parameters) = (self.tokens(), self.parameters());
        match self.kind {
            PrefixKind::Embeddings => {
                format!("{tokens} virtual tokens before the first layer, {parameters} parameters")
            }
            _ => {
                let layers = self.shape.layers;
                format!("{tokens} virtual tokens in {layers} layers, {parameters} parameters")
            }
        }
    }

    /// Returns the embeddings, or the activations that enter a layer, `[1, tokens, d_model]`.
    pub(crate) fn states(&self, layer: usize) -> Tensor<3> {
        let d = self.shape.d_model;
        let states = self.embeddings.val().narrow(1, layer * d, d);
        states.unsqueeze() // [tokens, d_model] -> [1, tokens, d_model]
    }

    /// Returns the trained keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> PrefixLayer {
        let PrefixShape { heads, d_keys, .. } = self.shape;
        let tokens = self.tokens();
        let embeddings = self.embeddings.val();
        let part = |index: usize| {
            let part = embeddings.clone().narrow(1, index * d_keys, d_keys);
            part.reshape([1, tokens, heads, d_keys / heads])
                .swap_dims(1, 2) // [1, heads, tokens, d_head]
        };
        PrefixLayer {
            keys: part(2 * layer),
            values: part(2 * layer + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_see_their_own_keys_and_values_by_head() {
        let shape = PrefixShape {
            layers: 2,
            heads: 2,
            query_heads: 2,
            d_keys: 4,
            d_model: 4,
            positions: 9,
        };
        let values = (0..32).map(|value| value as f32).collect();
        let kind = PrefixKind::KeysAndValues;
        let prefix = Prefix::new(values, 2, kind, shape, &Device::flex());
        let layer = prefix.layer(1);
        assert_eq!(layer.keys.dims(), [1, 2, 2, 2]);
        let host = |t: Tensor<4>| t.into_data().iter::<f32>().collect::<Vec<_>>();
        // Of each head the two tokens, which are 16 apart.
        assert_eq!(host(layer.keys), [8., 9., 24., 25., 10., 11., 26., 27.]);
        assert_eq!(host(layer.values), [12., 13., 28., 29., 14., 15., 30., 31.]);
        assert_eq!((prefix.tokens(), prefix.parameters()), (2, 32));
    }
}
