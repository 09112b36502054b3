//! Scaled dot-product attention between all tokens.

use crate::ModelError;
use crate::encoder::{EncoderConfig, SelfAttention};
use crate::prefix::PrefixLayer;
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::ops::ScaledDotProduct;
use lora_core::{Dropout, LoraLinear};

/// Multi-head self-attention (Vaswani et al. 2017, section 3.2).
#[derive(Module, Debug)]
pub struct BertSelfAttention {
    /// Query projection, `[hidden_size, hidden_size]`.
    pub query: LoraLinear,
    /// Key projection, `[hidden_size, hidden_size]`.
    pub key: LoraLinear,
    /// Value projection, `[hidden_size, hidden_size]`.
    pub value: LoraLinear,
    /// Dropout on the attention weights.
    pub dropout: Dropout,
    heads: usize,
}

impl BertSelfAttention {
    pub(super) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let square = [config.hidden_size; 2];
        Ok(Self {
            query: builder.linear(&format!("{path}.query"), square)?,
            key: builder.linear(&format!("{path}.key"), square)?,
            value: builder.linear(&format!("{path}.value"), square)?,
            dropout: Dropout::new(config.attention_dropout),
            heads: config.num_attention_heads,
        })
    }
}

impl SelfAttention for BertSelfAttention {
    /// Bias on the scores that masks padding, `[batch, 1, 1, keys]`.
    type Context = Tensor<4>;

    fn forward(&self, x: Tensor<3>, hidden: &Tensor<4>, prefix: Option<&PrefixLayer>) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let d_head = d / self.heads;
        let split = |x: Tensor<3>| {
            let heads = x.reshape([batch, seq, self.heads, d_head]);
            heads.swap_dims(1, 2) // [batch, heads, seq, d_head]
        };
        let query = split(self.query.forward(x.clone()));
        let key = split(self.key.forward(x.clone()));
        let value = split(self.value.forward(x));
        let (key, value) = match prefix {
            None => (key, value),
            Some(prefix) => prefix.before(key, value),
        };
        let attention = ScaledDotProduct::new(1.0 / (d_head as f64).sqrt())
            .with_bias(Some(hidden.clone()))
            .with_dropout(&self.dropout);
        let output = attention.forward(query, key, value); // [batch, heads, seq, d_head]
        output.swap_dims(1, 2).reshape([batch, seq, d])
    }
}
