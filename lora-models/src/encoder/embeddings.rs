//! Embeddings of tokens, positions and segments.

use super::EncoderConfig;
use crate::ModelError;
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::{Dropout, LayerNorm, LoraEmbedding, LoraLinear};

/// Virtual tokens before a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct VirtualRows {
    /// Embeddings that become the first rows of the sequence, `[1, tokens, embedding_size]`.
    pub embeddings: Option<Tensor<3>>,
    /// Number of positions before those of the text, without rows.
    pub skipped: usize,
}

/// Normalized sum of the embeddings of tokens, positions and segments.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// Token embedding, `[vocab_size, embedding_size]`.
    pub word_embeddings: LoraEmbedding,
    /// Position embedding, `[max_position_embeddings, embedding_size]`, unless only the attention uses positions.
    pub position_embeddings: Option<LoraEmbedding>,
    /// Segment embedding, `[type_vocab_size, embedding_size]`, for models with segments.
    pub token_type_embeddings: Option<LoraEmbedding>,
    /// Projection `[embedding_size, hidden_size]`, if these sizes differ.
    pub embed_proj: Option<LoraLinear>,
    /// Layer norm of the sum.
    pub layer_norm: LayerNorm,
    /// Dropout on the normalized sum.
    pub dropout: Dropout,
    /// RoBERTa's padding token: positions count the other tokens, from one above this id.
    padding: Option<usize>,
    /// Sets the rows of padding to zero, in DeBERTa.
    clears_padding: bool,
}

impl Embeddings {
    pub(crate) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let (d, hidden) = (config.embedding_size, config.hidden_size);
        let is_roberta = config.family.is_roberta();
        let name = |name: &str| format!("{path}.{name}");
        let mut table = |there: bool, field: &str, rows: usize| {
            there
                .then(|| builder.embedding(&name(field), [rows, d]))
                .transpose()
        };
        let positions = config.max_position_embeddings;
        let position_embeddings =
            table(config.position_embeddings, "position_embeddings", positions)?;
        let types = config.type_vocab_size;
        let token_type_embeddings = table(types > 0, "token_type_embeddings", types)?;
        Ok(Self {
            word_embeddings: builder.embedding(&name("word_embeddings"), [config.vocab_size, d])?,
            position_embeddings,
            token_type_embeddings,
            embed_proj: (d != hidden)
                .then(|| builder.linear_without_bias(&name("embed_proj"), [d, hidden]))
                .transpose()?,
            layer_norm: builder.norm(&name("layer_norm"), hidden, config.layer_norm_eps)?,
            dropout: Dropout::new(config.hidden_dropout),
            padding: is_roberta.then_some(config.pad_token_id as usize),
            clears_padding: config.disentangled.is_some(),
        })
    }

    /// Embeds tokens.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, rows]`, true for a token, false for padding; with rows for virtual tokens that are rows of the sequence
    /// - returns `[batch, rows, hidden_size]`
    ///
    /// # Panics
    /// If there are more tokens than positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        self.with_virtual(ids, mask, type_ids, VirtualRows::default())
    }

    /// Embeds tokens, as [`forward`](Self::forward), after or beside virtual tokens.
    pub(crate) fn with_virtual(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
        before: VirtualRows,
    ) -> Tensor<3> {
        let VirtualRows {
            embeddings,
            skipped,
        } = before;
        let mut x = self.word_embeddings.forward(ids.clone());
        let mut first = 0;
        if let Some(embeddings) = embeddings {
            let [_, tokens, d] = embeddings.dims();
            let own = embeddings.expand([x.dims()[0], tokens, d]);
            x = Tensor::cat(vec![own, x], 1);
            first = tokens;
        }
        if let Some(table) = &self.position_embeddings {
            let positions = match first {
                0 => self.positions(ids.clone(), table, skipped),
                // As in transformers, whose models count embeddings without asking for padding.
                _ => self.counted(x.dims()[1], table, &x.device()),
            };
            x = x + table.forward(positions);
        }
        if let Some(table) = &self.token_type_embeddings {
            // A table of one row is the same for every token, whatever segment the tokenizer assigns.
            let only_row = table.weight.lazy_shape()[0] == 1;
            let type_ids = type_ids.filter(|_| !only_row);
            let type_ids = type_ids.unwrap_or_else(|| ids.zeros_like());
            let [batch, _] = type_ids.dims();
            let of_first = Tensor::<2, Int>::zeros([batch, first], &type_ids.device());
            let type_ids = match first {
                0 => type_ids,
                _ => Tensor::cat(vec![of_first, type_ids], 1),
            };
            x = x + table.forward(type_ids);
        }
        if let Some(projection) = &self.embed_proj {
            x = projection.forward(x);
        }
        x = self.layer_norm.forward(x);
        if self.clears_padding {
            x = x * mask.clone().float().unsqueeze_dim::<3>(2);
        }
        self.dropout.forward(x)
    }

    /// Returns positions, `[1 or batch, seq]`, after `skipped` ones.
    fn positions(
        &self,
        ids: Tensor<2, Int>,
        table: &LoraEmbedding,
        skipped: usize,
    ) -> Tensor<2, Int> {
        let [_, seq] = ids.dims();
        match self.padding {
            None => {
                let all = self.counted(seq + skipped, table, &ids.device());
                all.narrow(1, skipped, seq)
            }
            Some(padding) => {
                self.check_positions(seq + skipped, table);
                let real = ids.not_equal_elem(padding as i64).int(); // [batch, seq]
                (real.clone().cumsum(1) + skipped as i64) * real + padding as i64
            }
        }
    }

    /// Returns the first positions, `[1, count]`.
    fn counted(&self, count: usize, table: &LoraEmbedding, device: &Device) -> Tensor<2, Int> {
        let taken = self.check_positions(count, table) as i64;
        let positions = Tensor::<1, Int>::arange(taken..taken + count as i64, device);
        positions.unsqueeze() // [count] -> [1, count]
    }

    /// Checks that there are positions for so many tokens, and returns the first.
    fn check_positions(&self, count: usize, table: &LoraEmbedding) -> usize {
        let rows = table.weight.lazy_shape()[0];
        let taken = self.padding.map_or(0, |padding| padding + 1);
        assert!(
            count + taken <= rows,
            "{count} tokens are more than the {} positions",
            rows - taken
        );
        taken
    }
}
