//! Construction of the modules from a source of parameters.

use super::Gpt2Config;
use super::attention::Attention;
use super::block::{Block, Mlp};
use super::model::{Gpt2, Gpt2LmHead};
use crate::ModelError;
use crate::added::Added;
use crate::weights::{LayerBuilder, Weights};
use burn::nn::Embedding;
use burn::tensor::Device;
use lora_core::Dropout;

/// Builds a model from the parameters of a source.
pub(super) fn build(
    config: &Gpt2Config,
    device: &Device,
    weights: &mut dyn Weights,
) -> Result<Gpt2LmHead, ModelError> {
    let architecture = &Gpt2LmHead::architecture();
    let maker = &mut LayerBuilder {
        architecture,
        device,
        weights,
    };
    let shape = [config.n_embd, config.vocab_size];
    Ok(Gpt2LmHead {
        transformer: Gpt2::build(maker, config, "transformer")?,
        lm_head: if config.tie_word_embeddings {
            None
        } else {
            Some(maker.linear_without_bias("lm_head", shape)?)
        },
        config: config.clone(),
    })
}

impl Gpt2 {
    /// Builds embeddings and layers at `path`.
    pub(crate) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &Gpt2Config,
        path: &str,
    ) -> Result<Self, ModelError> {
        let (d, vocab) = (config.n_embd, config.vocab_size);
        let blocks =
            (0..config.n_layer).map(|layer| block(maker, config, &format!("{path}.h"), layer));
        let h = blocks.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            wte: maker.embedding(&format!("{path}.wte"), [vocab, d])?,
            wpe: Embedding {
                weight: maker.param(&format!("{path}.wpe.weight"), [config.n_positions, d])?,
            },
            drop: Dropout::new(config.embd_pdrop),
            h,
            ln_f: maker.norm(&format!("{path}.ln_f"), d, config.layer_norm_epsilon)?,
            added: Added::none(),
        })
    }
}

fn block(
    maker: &mut LayerBuilder<'_>,
    config: &Gpt2Config,
    blocks: &str,
    layer: usize,
) -> Result<Block, ModelError> {
    let (d, inner, epsilon) = (config.n_embd, config.inner(), config.layer_norm_epsilon);
    let path = |name: &str| format!("{blocks}.{layer}.{name}");
    let mut scale = 1.0;
    if config.scale_attn_weights {
        scale /= ((d / config.n_head) as f64).sqrt();
    }
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (layer + 1) as f64;
    }
    Ok(Block {
        ln_1: maker.norm(&path("ln_1"), d, epsilon)?,
        attn: Attention {
            c_attn: maker.linear(&path("attn.c_attn"), [d, 3 * d])?,
            c_proj: maker.linear(&path("attn.c_proj"), [d, d])?,
            attn_dropout: Dropout::new(config.attn_pdrop),
            resid_dropout: Dropout::new(config.resid_pdrop),
            n_head: config.n_head,
            scale,
        },
        ln_2: maker.norm(&path("ln_2"), d, epsilon)?,
        mlp: Mlp {
            c_fc: maker.linear(&path("mlp.c_fc"), [d, inner])?,
            c_proj: maker.linear(&path("mlp.c_proj"), [inner, d])?,
            dropout: Dropout::new(config.resid_pdrop),
            activation: config.activation_function,
        },
    })
}
