//! Names of a decoder's modules in transformers.
//!
//! | here | in transformers |
//! | --- | --- |
//! | `model.layers.{i}.self_attn.qkv.Separate.q_proj` | `model.layers.{i}.self_attn.q_proj` |
//! | `model.layers.{i}.self_attn.qkv.Fused` | `model.layers.{i}.self_attn.qkv_proj` |
//! | `model.layers.{i}.mlp.gate_up.Separate.up_proj` | `model.layers.{i}.mlp.up_proj` |
//! | `model.layers.{i}.mlp.gate_up.Fused` | `model.layers.{i}.mlp.gate_up_proj` |
//! | `….gamma` of a norm | `….weight` |
//! | everything else | the same name |

use super::config::DecoderConfig;
use super::family::ProjectionLayout;
use crate::lm::Ends;
use lora_core::{Architecture, FusedLayout, FusedProjection};

/// Prefix that the names of the decoder have in the file of a model with a head.
pub(super) const PREFIX: &str = "model.";
/// Norm after the last layer, which every file has.
pub(super) const NORM: &str = "model.norm.weight";
/// Token embedding and output layer.
pub(super) const ENDS: Ends = Ends {
    embedding: "model.embed_tokens",
    head: "lm_head",
};

/// True for the frequencies of rotary embeddings in old files, which are computed here.
pub(super) fn is_frequency(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

/// Returns the modules' names in transformers, the output layer, which `all-linear` leaves out, and the fused projections:
/// `qkv_proj[q,v]` and `gate_up_proj[up]` adapt slices of them.
pub(crate) fn architecture(config: &DecoderConfig) -> Architecture {
    let fused = |module: &str, parts: &[&str], layout| FusedProjection {
        module: module.into(),
        parts: parts.iter().map(ToString::to_string).collect(),
        layout,
    };
    let is_fused = config.layout == ProjectionLayout::Fused;
    let names = match config.layout {
        ProjectionLayout::Separate => [("qkv", ""), ("gate_up", ""), ("Separate", "")],
        ProjectionLayout::Fused => [
            ("qkv", "qkv_proj"),
            ("gate_up", "gate_up_proj"),
            ("Fused", ""),
        ],
    };
    let mut parts = Vec::new();
    if is_fused {
        let (gate_up, qkv) = (["gate", "up"], ["q", "k", "v"]);
        parts.push(fused("mlp.gate_up_proj", &gate_up, FusedLayout::PartByPart));
        let layout = match config.num_attention_heads / config.num_key_value_heads {
            1 => FusedLayout::PartByPart,
            sharing => FusedLayout::Grouped { sharing },
        };
        parts.push(fused("self_attn.qkv_proj", &qkv, layout));
    }
    Architecture {
        output_layers: vec![ENDS.head.into()],
        vocabulary: vec![ENDS.embedding.into(), ENDS.head.into()],
        fused: parts,
        names: names
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .to_vec(),
        ..Architecture::default()
    }
}
