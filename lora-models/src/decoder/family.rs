//! Families of decoders, and what sets each apart.

use lora_core::RmsScale;
use serde_json::{Map, Value, json};

/// A family of decoders, by its `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecoderFamily {
    /// Llama, and models of its kind such as SmolLM2 and TinyLlama (Touvron et al. 2023).
    Llama,
    /// Mistral: Llama with a sliding window (Jiang et al. 2023).
    Mistral,
    /// Qwen 2 and 2.5: Llama with a bias on queries, keys and values.
    Qwen2,
    /// Qwen 3: Llama with a norm on each head of queries and keys.
    Qwen3,
    /// SmolLM 3: Llama with layers without positions.
    Smollm3,
    /// Phi 3 and Phi 4 mini: Llama with fused projections, and positions on a part of each head.
    Phi3,
    /// Granite: Llama with multipliers.
    Granite,
    /// Gemma: Llama with GELU, wide heads and scaled embeddings.
    Gemma,
    /// Gemma 2: norms before and after, windows on every second layer, capped scores and logits.
    Gemma2,
    /// Gemma 3 for text alone: Gemma 2 with norms of heads and two kinds of positions, without caps.
    Gemma3Text,
    /// OLMo 2: norms after attention and MLP, and of queries and keys as a whole.
    Olmo2,
    /// OLMo 3: OLMo 2 with windows on three of four layers.
    Olmo3,
}

/// Layers with a sliding window, where the configuration does not list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// No layer.
    None,
    /// All layers, if there is a `sliding_window`.
    All,
    /// Layers from `max_window_layers` on, if `use_sliding_window` says so; `layer_types` may list others.
    From,
    /// Layers without positions, if `use_sliding_window` says so; `layer_types` may list others.
    WithoutPositions,
    /// All but every nth, counted from 1; `layer_types` may list others.
    AllBut(usize),
}

/// Place of the norms in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and MLP.
    Before,
    /// Before and after each.
    Around,
    /// After each.
    After,
}

/// Norm of queries and keys, before their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// No norm.
    None,
    /// Norm of each head.
    Head,
    /// Norm of all heads together.
    Whole,
}

/// Layout of the projections of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectionLayout {
    /// A projection each for queries, keys, values, gate and up.
    Separate,
    /// One for queries, keys and values; one for gate and up.
    Fused,
}

/// Properties that all models of a family have.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyTraits {
    pub norm: RmsScale,
    pub placement: NormPlacement,
    pub head_norm: HeadNorm,
    pub layout: ProjectionLayout,
    pub windows: Windows,
    /// Key of the activation function.
    pub activation: &'static str,
    /// Bias of queries, keys and values, whatever the configuration says.
    pub query_bias: Option<bool>,
    /// Positions may be on a part of each head.
    pub partial: bool,
    /// Positions differ between layers with a window and those without.
    pub ropes_by_layer: bool,
}

const LLAMA: FamilyTraits = FamilyTraits {
    norm: RmsScale::Weight,
    placement: NormPlacement::Before,
    head_norm: HeadNorm::None,
    layout: ProjectionLayout::Separate,
    windows: Windows::None,
    activation: "hidden_act",
    query_bias: None,
    partial: false,
    ropes_by_layer: false,
};
const GEMMA2: FamilyTraits = FamilyTraits {
    norm: RmsScale::OnePlusWeight,
    placement: NormPlacement::Around,
    activation: "hidden_activation",
    windows: Windows::AllBut(2),
    ..LLAMA
};
const OLMO2: FamilyTraits = FamilyTraits {
    placement: NormPlacement::After,
    head_norm: HeadNorm::Whole,
    ..LLAMA
};

impl DecoderFamily {
    /// All families.
    pub const ALL: [Self; 12] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Smollm3,
        Self::Phi3,
        Self::Granite,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3Text,
        Self::Olmo2,
        Self::Olmo3,
    ];

    /// Returns the `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.names()[0]
    }

    /// Returns the name of the language model's class in transformers.
    pub fn class(self) -> &'static str {
        self.names()[1]
    }

    /// Returns the prefix of the names of classes with a head on texts or tokens in transformers.
    pub(crate) fn class_prefix(self) -> &'static str {
        match self {
            Self::Gemma3Text => "Gemma3Text",
            _ => self.class().trim_end_matches("ForCausalLM"),
        }
    }

    /// True if transformers has a class with a head on texts, or one with a head on tokens.
    pub(crate) fn has_head(self, on_tokens: bool) -> bool {
        match self {
            Self::Granite => false,
            Self::Gemma3Text | Self::Olmo2 | Self::Olmo3 => !on_tokens,
            _ => true,
        }
    }

    /// True if the factor on embeddings is in the embedding layer of transformers, and not behind it as in Granite.
    pub(super) fn embeds_scaled(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3Text)
    }

    /// Returns the family of a `model_type`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|family| family.model_type() == name)
    }

    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Llama => ["llama", "LlamaForCausalLM"],
            Self::Mistral => ["mistral", "MistralForCausalLM"],
            Self::Qwen2 => ["qwen2", "Qwen2ForCausalLM"],
            Self::Qwen3 => ["qwen3", "Qwen3ForCausalLM"],
            Self::Smollm3 => ["smollm3", "SmolLM3ForCausalLM"],
            Self::Phi3 => ["phi3", "Phi3ForCausalLM"],
            Self::Granite => ["granite", "GraniteForCausalLM"],
            Self::Gemma => ["gemma", "GemmaForCausalLM"],
            Self::Gemma2 => ["gemma2", "Gemma2ForCausalLM"],
            Self::Gemma3Text => ["gemma3_text", "Gemma3ForCausalLM"],
            Self::Olmo2 => ["olmo2", "Olmo2ForCausalLM"],
            Self::Olmo3 => ["olmo3", "Olmo3ForCausalLM"],
        }
    }

    /// Returns the properties of the family.
    pub(super) fn traits(self) -> FamilyTraits {
        match self {
            Self::Llama | Self::Granite => LLAMA,
            Self::Mistral => FamilyTraits {
                windows: Windows::All,
                query_bias: Some(false),
                ..LLAMA
            },
            Self::Qwen2 => FamilyTraits {
                windows: Windows::From,
                query_bias: Some(true),
                ..LLAMA
            },
            Self::Qwen3 => FamilyTraits {
                head_norm: HeadNorm::Head,
                windows: Windows::From,
                ..LLAMA
            },
            Self::Smollm3 => FamilyTraits {
                windows: Windows::WithoutPositions,
                ..LLAMA
            },
            Self::Phi3 => FamilyTraits {
                layout: ProjectionLayout::Fused,
                windows: Windows::All,
                query_bias: Some(false),
                partial: true,
                ..LLAMA
            },
            Self::Gemma => FamilyTraits {
                norm: RmsScale::OnePlusWeight,
                ..LLAMA
            },
            Self::Gemma2 => GEMMA2,
            Self::Gemma3Text => FamilyTraits {
                head_norm: HeadNorm::Head,
                windows: Windows::AllBut(6),
                ropes_by_layer: true,
                ..GEMMA2
            },
            Self::Olmo2 => OLMO2,
            Self::Olmo3 => FamilyTraits {
                windows: Windows::AllBut(4),
                ropes_by_layer: true,
                ..OLMO2
            },
        }
    }

    /// Returns the modules that PEFT adapts by default. It has no default for some families, which have Llama's here.
    pub(crate) fn default_targets(self) -> &'static [&'static str] {
        match self.traits().layout {
            ProjectionLayout::Separate => &["q_proj", "v_proj"],
            ProjectionLayout::Fused => &["qkv_proj"],
        }
    }

    /// Returns the values of keys that a configuration does not have, as in transformers.
    pub(super) fn defaults(self) -> Map<String, Value> {
        let mut all = json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "head_dim": null, "hidden_act": "silu",
            "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 2048, "initializer_range": 0.02,
            "rms_norm_eps": 1e-6, "pad_token_id": null, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false,
            "rope_theta": 1e4, "attention_dropout": 0.0, "attention_bias": false, "mlp_bias": false,
            "sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 28,
        });
        let own = match self {
            Self::Llama => json!({}),
            Self::Mistral => json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
            }),
            Self::Qwen2 | Self::Qwen3 => json!({
                "vocab_size": 151_936, "intermediate_size": 22016, "num_key_value_heads": 32,
                "max_position_embeddings": 32768, "bos_token_id": null, "eos_token_id": null,
                "head_dim": if self == Self::Qwen3 { json!(128) } else { Value::Null },
            }),
            Self::Smollm3 => json!({
                "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
                "num_key_value_heads": 4, "max_position_embeddings": 32768, "pad_token_id": 128_004,
                "bos_token_id": 128_000, "eos_token_id": 128_001, "rope_theta": 2e6, "sliding_window": null,
                "tie_word_embeddings": true, "no_rope_layer_interval": 4,
            }),
            Self::Phi3 => json!({
                "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
                "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "eos_token_id": 32000,
                "pad_token_id": 32000, "sliding_window": null, "resid_pdrop": 0.0,
            }),
            Self::Granite => json!({
                "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
                "attention_multiplier": 1.0,
            }),
            Self::Gemma => json!({
                "vocab_size": 256_000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
                "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "pad_token_id": 0,
                "bos_token_id": 2, "eos_token_id": 1, "tie_word_embeddings": true,
            }),
            Self::Gemma2 | Self::Gemma3Text => json!({
                "vocab_size": if self == Self::Gemma2 { 256_000 } else { 262_208 },
                "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
                "num_key_value_heads": 4, "head_dim": 256,
                "max_position_embeddings": if self == Self::Gemma2 { 8192 } else { 131_072 },
                "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "tie_word_embeddings": true,
                "query_pre_attn_scalar": 256, "sliding_window_pattern": 6,
                "rope_theta": if self == Self::Gemma2 { 1e4 } else { 1e6 },
                "final_logit_softcapping": if self == Self::Gemma2 { json!(30.0) } else { Value::Null },
                "attn_logit_softcapping": if self == Self::Gemma2 { json!(50.0) } else { Value::Null },
            }),
            Self::Olmo2 | Self::Olmo3 => json!({
                "vocab_size": 50304, "rms_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": null,
                "eos_token_id": 50279, "rope_theta": if self == Self::Olmo3 { 5e5 } else { 1e4 },
            }),
        };
        if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
            all.extend(own);
        }
        match all {
            Value::Object(all) => all,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_documentation_has_all_families() {
        let documentation = include_str!("mod.rs");
        let rows = documentation
            .lines()
            .filter(|line| line.starts_with("//! | ") && line.matches('|').count() == 4);
        let names: Vec<&str> = rows
            .filter_map(|row| {
                row.split('|')
                    .nth(2)?
                    .trim()
                    .strip_prefix('`')?
                    .strip_suffix('`')
            })
            .filter(|name| *name != "model_type")
            .collect();
        assert_eq!(names, DecoderFamily::ALL.map(DecoderFamily::model_type));
        for family in DecoderFamily::ALL {
            assert_eq!(
                DecoderFamily::from_model_type(family.model_type()),
                Some(family)
            );
        }
    }

    #[test]
    fn the_table_says_what_sets_a_family_apart() {
        let rows = include_str!("mod.rs").lines();
        let rows: Vec<&str> = rows.filter(|line| line.starts_with("//! | ")).collect();
        for family in DecoderFamily::ALL {
            let name = family.model_type();
            let row = rows
                .iter()
                .find(|row| row.contains(&format!("| `{name}` |")));
            let (text, traits) = (row.unwrap(), family.traits());
            for (words, holds) in [
                (
                    "fused projections",
                    traits.layout == ProjectionLayout::Fused,
                ),
                ("norm of each head", traits.head_norm == HeadNorm::Head),
                ("positions on a part", traits.partial),
                ("two kinds of positions", traits.ropes_by_layer),
                ("windows by layer", traits.windows == Windows::From),
                ("bias on queries", traits.query_bias == Some(true)),
            ] {
                assert_eq!(text.contains(words), holds, "{name}: {words}");
            }
        }
    }
}
