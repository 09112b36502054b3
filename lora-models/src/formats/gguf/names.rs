//! Names of llama.cpp for the modules of a base.
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
/// Name of the output layer.
const HEAD: &str = "output";

type Names = &'static [(&'static str, &'static str)];

/// What llama.cpp has of a model.
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
];
const GPT2: Names = &[
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
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
                others: &[("transformer.wte", EMBEDDING), ("lm_head", HEAD)],
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
            others: &[("model.embed_tokens", EMBEDDING), ("lm_head", HEAD)],
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

    /// Returns the number of heads whose features are permuted in the rows of a tensor; `None` if none are.
    pub(super) fn permuted_heads(&self, name: &str) -> Option<usize> {
        let [heads, key_heads] = self.permuted_heads?;
        match name.rsplit('.').next() {
            Some("attn_q") => Some(heads),
            Some("attn_k") => Some(key_heads),
            _ => None,
        }
    }
}
