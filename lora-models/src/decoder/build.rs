//! Construction of the modules from a source of parameters.

use super::attention::{Attention, AttentionSettings, QueryKeyValue, SeparateProjections};
use super::block::Layer;
use super::config::DecoderConfig;
use super::family::{HeadNorm, NormPlacement, ProjectionLayout};
use super::mlp::{GateUp, Mlp, SeparateGate};
use super::model::{Decoder, DecoderLm};
use super::names::{ENDS, architecture};
use crate::ModelError;
use crate::added::Added;
use crate::weights::{LayerBuilder, Random, Weights};
use burn::tensor::Device;
use lora_core::{Dropout, LoraLinear, RmsNorm, RmsNormConfig, RmsScale};

/// Builds a model from the parameters of a source.
pub(super) fn build(
    config: &DecoderConfig,
    device: &Device,
    weights: &mut dyn Weights,
) -> Result<DecoderLm, ModelError> {
    let maker = &mut LayerBuilder {
        architecture: &architecture(config),
        device,
        weights,
    };
    let shape = [config.hidden_size, config.vocab_size];
    Ok(DecoderLm {
        model: Decoder::build(maker, config, "model")?,
        lm_head: if config.tie_word_embeddings {
            None
        } else {
            Some(maker.linear_without_bias(ENDS.head, shape)?)
        },
    })
}

/// Returns the source of random weights: normal with standard deviation `initializer_range`, norms that change nothing, biases
/// zero.
pub(super) fn random(config: &DecoderConfig, seed: u64) -> Random<impl Fn(&str) -> f64 + use<>> {
    let deviation = config.initializer_range;
    Random {
        seed,
        norm: config.initial_norm(),
        deviation: move |_: &str| deviation,
    }
}

impl DecoderConfig {
    /// Returns the weight of a norm that changes nothing.
    pub(crate) fn initial_norm(&self) -> f32 {
        match self.norm {
            RmsScale::Weight => 1.0,
            RmsScale::OnePlusWeight => 0.0,
        }
    }
}

impl Decoder {
    /// Builds embeddings and layers at `path`.
    pub(crate) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &DecoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let shape = [config.vocab_size, config.hidden_size];
        let mut parts = Parts { maker, config };
        let embed_tokens = (parts.maker).embedding(&format!("{path}.embed_tokens"), shape)?;
        let layers = (0..config.layers.len())
            .map(|index| parts.layer(&format!("{path}.layers.{index}"), index))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            embed_tokens,
            layers,
            norm: parts.norm(&format!("{path}.norm"), config.hidden_size)?,
            added: Added::none(),
            config: config.clone(),
        })
    }
}

struct Parts<'a, 'b> {
    maker: &'a mut LayerBuilder<'b>,
    config: &'a DecoderConfig,
}

impl Parts<'_, '_> {
    fn norm(&mut self, path: &str, d: usize) -> Result<RmsNorm, ModelError> {
        let gamma = self.maker.param(&format!("{path}.gamma"), [d])?;
        let config = RmsNormConfig::new()
            .with_scale(self.config.norm)
            .with_epsilon(self.config.norm_epsilon);
        Ok(config.init_with(gamma))
    }

    fn linear(
        &mut self,
        path: &str,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<LoraLinear, ModelError> {
        if bias {
            self.maker.linear(path, shape)
        } else {
            self.maker.linear_without_bias(path, shape)
        }
    }

    fn layer(&mut self, path: &str, index: usize) -> Result<Layer, ModelError> {
        let config = self.config;
        let (d, placement) = (config.hidden_size, config.placement);
        let [before, after] = match placement {
            NormPlacement::Before => [true, false],
            NormPlacement::Around => [true, true],
            NormPlacement::After => [false, true],
        };
        let mut norm = |has: bool, name: &str| {
            has.then(|| self.norm(&format!("{path}.{name}"), d))
                .transpose()
        };
        let input_layernorm = norm(before, "input_layernorm")?;
        let pre_feedforward_layernorm = norm(before && after, "pre_feedforward_layernorm")?;
        let post_feedforward_layernorm = norm(after, "post_feedforward_layernorm")?;
        Ok(Layer {
            input_layernorm,
            self_attn: self.attention(&format!("{path}.self_attn"), index)?,
            post_attention_layernorm: self.norm(&format!("{path}.post_attention_layernorm"), d)?,
            pre_feedforward_layernorm,
            mlp: self.mlp(&format!("{path}.mlp"))?,
            post_feedforward_layernorm,
            resid_dropout: Dropout::new(config.residual_dropout),
            residual: config.multipliers.residual,
        })
    }

    fn attention(&mut self, path: &str, index: usize) -> Result<Attention, ModelError> {
        let config = self.config;
        let (d, q, k) = (config.hidden_size, config.query_width(), config.key_width());
        let bias = config.biases.query_key_value;
        let qkv = match config.layout {
            ProjectionLayout::Separate => {
                let path = format!("{path}.qkv.Separate");
                QueryKeyValue::Separate(SeparateProjections {
                    q_proj: self.linear(&format!("{path}.q_proj"), [d, q], bias)?,
                    k_proj: self.linear(&format!("{path}.k_proj"), [d, k], bias)?,
                    v_proj: self.linear(&format!("{path}.v_proj"), [d, k], bias)?,
                })
            }
            ProjectionLayout::Fused => {
                let path = format!("{path}.qkv.Fused");
                QueryKeyValue::Fused(self.linear(&path, [d, q + 2 * k], bias)?)
            }
        };
        let [q_size, k_size] = match config.head_norm {
            HeadNorm::None => [None, None],
            HeadNorm::Head => [Some(config.head_dim); 2],
            HeadNorm::Whole => [Some(q), Some(k)],
        };
        let mut norm = |name: &str, size: Option<usize>| {
            size.map(|size| self.norm(&format!("{path}.{name}"), size))
                .transpose()
        };
        let (q_norm, k_norm) = (norm("q_norm", q_size)?, norm("k_norm", k_size)?);
        let layer = config.layers[index];
        Ok(Attention {
            qkv,
            o_proj: self.linear(&format!("{path}.o_proj"), [q, d], config.biases.output)?,
            q_norm,
            k_norm,
            attn_dropout: Dropout::new(config.attention_dropout),
            settings: AttentionSettings {
                heads: config.num_attention_heads,
                key_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                scale: config.scale,
                cap: config.score_cap,
                window: layer.window,
                rope: layer.rope,
                norms_heads: config.head_norm == HeadNorm::Head,
            },
        })
    }

    fn mlp(&mut self, path: &str) -> Result<Mlp, ModelError> {
        let config = self.config;
        let (d, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.biases.mlp,
        );
        let gate_up = match config.layout {
            ProjectionLayout::Separate => {
                let path = format!("{path}.gate_up.Separate");
                GateUp::Separate(SeparateGate {
                    gate_proj: self.linear(&format!("{path}.gate_proj"), [d, inner], bias)?,
                    up_proj: self.linear(&format!("{path}.up_proj"), [d, inner], bias)?,
                })
            }
            ProjectionLayout::Fused => {
                let path = format!("{path}.gate_up.Fused");
                GateUp::Fused(self.linear(&path, [d, 2 * inner], bias)?)
            }
        };
        Ok(Mlp {
            gate_up,
            down_proj: self.linear(&format!("{path}.down_proj"), [inner, d], bias)?,
            activation: config.activation,
        })
    }
}
