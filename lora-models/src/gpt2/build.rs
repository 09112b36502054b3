//! Construction of the modules from a source of parameters.

use super::Gpt2Config;
use super::attention::Attention;
use super::block::{Block, Mlp};
use super::model::{Gpt2, Gpt2LmHead};
use crate::ModelError;
use crate::weights::{LayerBuilder, Weights};
use burn::nn::Embedding;
use burn::tensor::Device;
use lora_core::{Dropout, LayerNorm};

/// Builds a model from the parameters of a source.
pub(super) fn build(
    config: &Gpt2Config,
    device: &Device,
    weights: &mut dyn Weights,
) -> Result<Gpt2LmHead, ModelError> {
    let architecture = &Gpt2LmHead::architecture();
    let maker = LayerBuilder {
        architecture,
        device,
        weights,
    };
    let mut builder = Builder { config, maker };
    let transformer = builder.transformer()?;
    let head = [config.n_embd, config.vocab_size];
    let lm_head = if config.tie_word_embeddings {
        None
    } else {
        Some(builder.maker.linear_without_bias("lm_head", head)?)
    };
    Ok(Gpt2LmHead {
        transformer,
        lm_head,
        config: config.clone(),
    })
}

struct Builder<'a> {
    config: &'a Gpt2Config,
    maker: LayerBuilder<'a>,
}

impl Builder<'_> {
    fn transformer(&mut self) -> Result<Gpt2, ModelError> {
        let config = self.config;
        let d = config.n_embd;
        let blocks = (0..config.n_layer).map(|layer| self.block(layer));
        let h = blocks.collect::<Result<Vec<_>, _>>()?;
        let positions = [config.n_positions, d];
        Ok(Gpt2 {
            wte: self
                .maker
                .embedding("transformer.wte", [config.vocab_size, d])?,
            wpe: Embedding {
                weight: self.maker.param("transformer.wpe.weight", positions)?,
            },
            drop: Dropout::new(config.embd_pdrop),
            h,
            ln_f: self.norm("transformer.ln_f")?,
            prefix: None,
        })
    }

    fn block(&mut self, layer: usize) -> Result<Block, ModelError> {
        let config = self.config;
        let (d, inner) = (config.n_embd, config.inner());
        let path = |name: &str| format!("transformer.h.{layer}.{name}");
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= ((d / config.n_head) as f64).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        Ok(Block {
            ln_1: self.norm(&path("ln_1"))?,
            attn: Attention {
                c_attn: self.maker.linear(&path("attn.c_attn"), [d, 3 * d])?,
                c_proj: self.maker.linear(&path("attn.c_proj"), [d, d])?,
                attn_dropout: Dropout::new(config.attn_pdrop),
                resid_dropout: Dropout::new(config.resid_pdrop),
                n_head: config.n_head,
                scale,
            },
            ln_2: self.norm(&path("ln_2"))?,
            mlp: Mlp {
                c_fc: self.maker.linear(&path("mlp.c_fc"), [d, inner])?,
                c_proj: self.maker.linear(&path("mlp.c_proj"), [inner, d])?,
                dropout: Dropout::new(config.resid_pdrop),
                activation: config.activation_function,
            },
        })
    }

    fn norm(&mut self, path: &str) -> Result<LayerNorm, ModelError> {
        let config = self.config;
        self.maker
            .norm(path, config.n_embd, config.layer_norm_epsilon)
    }
}
