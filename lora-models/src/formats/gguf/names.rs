//! Names of llama.cpp for the modules of a base, and the order of features that it has.
//!
//! | here | in GGUF |
//! | --- | --- |
//! | `model.layers.{i}.self_attn.q_proj` | `blk.{i}.attn_q` |
//! | `model.layers.{i}.self_attn.qkv_proj`, `transformer.h.{i}.attn.c_attn` | `blk.{i}.attn_qkv` |
//! | `model.layers.{i}.mlp.up_proj`, `….gate_up_proj`, `transformer.h.{i}.mlp.c_fc` | `blk.{i}.ffn_up` |
//! | `model.embed_tokens`, `transformer.wte` | `token_embd` |
//! | `lm_head` | `output` |

use crate::config::ModelConfig;
use crate::decoder::{DecoderConfig, DecoderFamily};
use crate::encoder::EncoderFamily;

/// Name of the token embedding.
pub(super) const EMBEDDING: &str = "token_embd";
/// Name of the position embedding.
pub(super) const POSITIONS: &str = "position_embd";
/// Name of the output layer.
const HEAD: &str = "output";

type Names = &'static [(&'static str, &'static str)];

/// Architecture of a model in llama.cpp, and its names.
pub(super) struct Base {
    /// Name of the architecture.
    pub architecture: &'static str,
    /// Name of the layers before their index, here.
    layers: &'static str,
    /// Modules of a layer.
    in_layer: Names,
    /// Other modules.
    others: Names,
    /// Number of heads of queries and of keys, if the features of each head are permuted.
    permuted_heads: Option<[usize; 2]>,
    /// True if the output layer is the token embedding.
    pub tied: bool,
}

const DECODER: Names = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];
const OUTSIDE: Names = &[
    ("model.embed_tokens", EMBEDDING),
    ("model.norm", "output_norm"),
    ("lm_head", HEAD),
];
const GPT2: Names = &[
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
];
const OUTSIDE_GPT2: Names = &[
    ("transformer.wte", EMBEDDING),
    ("transformer.wpe", POSITIONS),
    ("transformer.ln_f", "output_norm"),
    ("lm_head", HEAD),
];
const BERT: Names = &[
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
];

impl Base {
    /// Finds the names for a model; `None` if llama.cpp has no such architecture.
    pub(super) fn of(config: &ModelConfig) -> Option<Self> {
        Some(match config {
            ModelConfig::Decoder(config) => Self::decoder(config),
            ModelConfig::Gpt2(config) => Self {
                architecture: "gpt2",
                layers: "transformer.h.",
                in_layer: GPT2,
                others: OUTSIDE_GPT2,
                permuted_heads: None,
                tied: config.tie_word_embeddings,
            },
            ModelConfig::Encoder(config) if config.family == EncoderFamily::Bert => Self {
                architecture: "bert",
                layers: "bert.encoder.layer.",
                in_layer: BERT,
                others: &[("bert.embeddings.word_embeddings", EMBEDDING)],
                permuted_heads: None,
                tied: false,
            },
            ModelConfig::Encoder(_) => return None,
        })
    }

    /// Llama and its closest kin turn neighbouring features there, and features half a head apart here.
    fn decoder(config: &DecoderConfig) -> Self {
        let (architecture, is_permuted) = match config.family {
            DecoderFamily::Llama | DecoderFamily::Mistral => ("llama", true),
            DecoderFamily::Smollm3 => ("smollm3", true),
            DecoderFamily::Granite => ("granite", true),
            DecoderFamily::Qwen2 => ("qwen2", false),
            DecoderFamily::Qwen3 => ("qwen3", false),
            DecoderFamily::Phi3 => ("phi3", false),
            DecoderFamily::Gemma => ("gemma", false),
            DecoderFamily::Gemma2 => ("gemma2", false),
            DecoderFamily::Gemma3Text => ("gemma3", false),
            DecoderFamily::Olmo2 | DecoderFamily::Olmo3 => ("olmo2", false),
        };
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        Self {
            architecture,
            layers: "model.layers.",
            in_layer: DECODER,
            others: OUTSIDE,
            permuted_heads: is_permuted.then_some(heads),
            tied: config.tie_word_embeddings,
        }
    }

    /// Returns the name of a module, without `.weight`.
    pub(super) fn name(&self, module: &str) -> Option<String> {
        let of = |names: Names, module: &str| {
            let mut names = names.iter();
            names.find_map(|(here, there)| (*here == module).then_some(*there))
        };
        if let Some(name) = of(self.others, module) {
            return Some(name.into());
        }
        let (index, rest) = module.strip_prefix(self.layers)?.split_once('.')?;
        let index: usize = index.parse().ok()?;
        Some(format!("blk.{index}.{}", of(self.in_layer, rest)?))
    }

    /// Returns true if a name is that of the output layer.
    pub(super) fn is_head(name: &str) -> bool {
        name == HEAD
    }

    /// Returns the name of a parameter, such as a weight.
    pub(super) fn parameter(&self, parameter: &str) -> Option<String> {
        let (module, end) = parameter.rsplit_once('.')?;
        Some(format!("{}.{end}", self.name(module)?))
    }

    /// Returns true if the matrix of a module is transposed there: that of a `Conv1D`.
    pub(super) fn is_transposed(&self, name: &str, shape: &[usize]) -> bool {
        self.architecture == "gpt2" && name.starts_with("blk.") && shape.len() == 2
    }

    /// Returns the number of heads whose features are permuted in the rows of a tensor; `None` if none are.
    pub(super) fn permuted_heads(&self, name: &str) -> Option<usize> {
        let [heads, key_heads] = self.permuted_heads?;
        match name.split('.').nth(2) {
            Some("attn_q") => Some(heads),
            Some("attn_k") => Some(key_heads),
            _ => None,
        }
    }
}

/// Puts rows `i` and `i + half` of each head beside each other, as `LlamaModel.permute` of llama.cpp's converter does; `None` if the
/// rows cannot be divided so.
pub(super) fn as_neighbours(values: &[f32], rows: usize, heads: usize) -> Option<Vec<f32>> {
    reordered(values, rows, heads, |within, half| {
        within % 2 * half + within / 2
    })
}

/// Puts them back.
pub(super) fn as_halves(values: &[f32], rows: usize, heads: usize) -> Option<Vec<f32>> {
    reordered(values, rows, heads, |within, half| {
        within % half * 2 + within / half
    })
}

fn reordered(
    values: &[f32],
    rows: usize,
    heads: usize,
    place: fn(usize, usize) -> usize,
) -> Option<Vec<f32>> {
    if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
        return None;
    }
    let (half, width) = (rows / heads / 2, values.len() / rows);
    let from = (0..rows).map(|row| {
        let (head, within) = (row / (2 * half), row % (2 * half));
        (head * 2 * half + place(within, half)) * width
    });
    let rows = from.flat_map(|start| &values[start..start + width]);
    Some(rows.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_features_comes_back() {
        let values: Vec<f32> = (0..36).map(|value| value as f32).collect();
        // Two heads of six rows of three.
        let turned = as_neighbours(&values, 12, 2).unwrap();
        assert_eq!(turned[..6], [0.0, 1.0, 2.0, 9.0, 10.0, 11.0]);
        assert_eq!(as_halves(&turned, 12, 2).unwrap(), values);
        assert!(as_neighbours(&values, 12, 4).is_none());
    }
}
