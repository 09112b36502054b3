//! Making the modules from their parameters, wherever these come from.

use super::Gpt2Config;
use super::attention::Attention;
use super::block::{Block, Mlp};
use super::model::{Gpt2, Gpt2LmHead};
use crate::ModelError;
use burn::module::Param;
use burn::nn::{Dropout, DropoutConfig, Embedding, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor, TensorData};
use lora_core::{LoraEmbedding, LoraLinear, param_id};

/// Where parameters come from: a checkpoint, or chance.
pub(super) trait Weights {
    /// The values of the parameter at `path`, row-major.
    fn values(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError>;
}

/// Makes a model, asking for one parameter at a time.
///
/// Ids of parameters depend on their paths alone, so that what an optimizer saved for them is found
/// again in another process.
pub(super) fn build(
    config: &Gpt2Config,
    device: &Device,
    weights: &mut dyn Weights,
) -> Result<Gpt2LmHead, ModelError> {
    let mut builder = Builder {
        config,
        device,
        weights,
    };
    let transformer = builder.transformer()?;
    let lm_head = match config.tie_word_embeddings {
        true => None,
        false => Some(LoraLinear {
            weight: builder.param("lm_head.weight", [config.n_embd, config.vocab_size])?,
            bias: None,
        }),
    };
    Ok(Gpt2LmHead {
        transformer,
        lm_head,
    })
}

struct Builder<'a> {
    config: &'a Gpt2Config,
    device: &'a Device,
    weights: &'a mut dyn Weights,
}

impl Builder<'_> {
    fn transformer(&mut self) -> Result<Gpt2, ModelError> {
        let config = self.config;
        let d = config.n_embd;
        let blocks = (0..config.n_layer).map(|layer| self.block(layer));
        let h = blocks.collect::<Result<Vec<_>, _>>()?;
        Ok(Gpt2 {
            wte: LoraEmbedding {
                weight: self.param("transformer.wte.weight", [config.vocab_size, d])?,
            },
            wpe: Embedding {
                weight: self.param("transformer.wpe.weight", [config.n_positions, d])?,
            },
            drop: dropout(config.embd_pdrop),
            h,
            ln_f: self.norm("transformer.ln_f")?,
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
                c_attn: self.linear(&path("attn.c_attn"), [d, 3 * d])?,
                c_proj: self.linear(&path("attn.c_proj"), [d, d])?,
                attn_dropout: dropout(config.attn_pdrop),
                resid_dropout: dropout(config.resid_pdrop),
                n_head: config.n_head,
                scale,
            },
            ln_2: self.norm(&path("ln_2"))?,
            mlp: Mlp {
                c_fc: self.linear(&path("mlp.c_fc"), [d, inner])?,
                c_proj: self.linear(&path("mlp.c_proj"), [inner, d])?,
                dropout: dropout(config.resid_pdrop),
                activation: config.activation_function,
            },
        })
    }

    fn linear(&mut self, path: &str, shape: [usize; 2]) -> Result<LoraLinear, ModelError> {
        Ok(LoraLinear {
            weight: self.param(&format!("{path}.weight"), shape)?,
            bias: Some(self.param(&format!("{path}.bias"), [shape[1]])?),
        })
    }

    fn norm(&mut self, path: &str) -> Result<LayerNorm, ModelError> {
        let d = self.config.n_embd;
        let mut norm = LayerNormConfig::new(d)
            .with_epsilon(self.config.layer_norm_epsilon)
            .init(self.device);
        norm.gamma = self.param(&format!("{path}.gamma"), [d])?;
        norm.beta = Some(self.param(&format!("{path}.beta"), [d])?);
        Ok(norm)
    }

    fn param<const D: usize>(
        &mut self,
        path: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let values = self.weights.values(path, &shape)?;
        Ok(param(path, values, shape, self.device))
    }
}

/// A trainable parameter at `path`.
pub(super) fn param<const D: usize>(
    path: &str,
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let data = TensorData::new(values, shape);
    // As Burn's own layers do: memory that lives as long as the model lies apart from the rest.
    let tensor = device.memory_persistent_allocations(data, |data| Tensor::from_data(data, device));
    // Set on the parameter and not on the tensor: a device without autodiff has no gradients, but
    // the parameter is to have them once `train()` has moved it to one that has.
    Param::initialized(param_id(path), tensor).set_require_grad(true)
}

/// The values of the parameter of this name, row-major.
pub(super) fn on_host<const D: usize>(
    name: &str,
    tensor: Tensor<D>,
) -> Result<Vec<f32>, ModelError> {
    let data = tensor.into_data().convert::<f32>();
    let found = format!("{:?}", data.dtype());
    data.try_into_vec::<f32>()
        .map_err(|_| ModelError::TensorDtype {
            name: name.into(),
            expected: "F32".into(),
            found,
        })
}

fn dropout(probability: f64) -> Dropout {
    DropoutConfig::new(probability).init()
}
