//! Names of a classifier's modules in transformers.

use super::HeadKind;
use super::head::has_dense;
use crate::deberta::DebertaModel;
use crate::decoder;
use crate::encoder::{EncoderConfig, EncoderFamily, HeadedDecoder};
use crate::gpt2::Gpt2LmHead;
use lora_core::{Architecture, CLASSIFICATION_HEADS};

/// Returns the modules' names in transformers and the output layers.
pub(super) fn architecture(config: &EncoderConfig, kind: HeadKind) -> Architecture {
    if let Some(decoder) = &config.decoder {
        return of_decoder(decoder, config.family, kind);
    }
    let mut names = vec![
        ("trunk", config.family.trunk()),
        ("Bert", ""),
        ("Deberta", ""),
        ("V1", ""),
        ("V2", ""),
        ("self_attn", "self"),
        ("layer_norm", "LayerNorm"),
    ];
    if config.family == EncoderFamily::Bert {
        names.push(("pooler", pooler(config.family)));
    }
    if !has_dense(config, kind) {
        names.push(("out_proj", ""));
    }
    Architecture {
        output_layers: ["", ".dense", ".out_proj"]
            .map(|inside| format!("{}{inside}", head_name(config.family, kind)))
            .to_vec(),
        fused: DebertaModel::fused(config),
        names: names
            .into_iter()
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .collect(),
        conv1d: Vec::new(),
        vocabulary: vec![token_embedding(config.family)],
    }
}

/// Returns the name of the head in transformers.
pub(super) fn head_name(family: EncoderFamily, kind: HeadKind) -> &'static str {
    let [classifier, score] = CLASSIFICATION_HEADS;
    match (family, kind) {
        (EncoderFamily::Gpt2, HeadKind::Sequence) | (EncoderFamily::Decoder(_), _) => score,
        _ => classifier,
    }
}

/// Returns the names that the weight of an output projection has in any family: that of the head, or of a layer in it.
pub(super) fn projection_weights() -> impl Iterator<Item = String> {
    let inside = ["", "out_proj."];
    CLASSIFICATION_HEADS
        .into_iter()
        .flat_map(move |head| inside.map(|inside| format!("{head}.{inside}weight")))
}

/// Returns the name of the pooler in transformers.
pub(super) fn pooler(family: EncoderFamily) -> &'static str {
    match family {
        EncoderFamily::Bert => "bert.pooler",
        _ => "pooler",
    }
}

/// Returns the name of the embedding of tokens in transformers.
pub(super) fn token_embedding(family: EncoderFamily) -> String {
    let inside = match family {
        EncoderFamily::Gpt2 => "wte",
        EncoderFamily::Decoder(_) => "embed_tokens",
        _ => "embeddings.word_embeddings",
    };
    format!("{}.{inside}", family.trunk())
}

/// Returns the names for a decoder, whose head is a projection alone.
fn of_decoder(decoder: &HeadedDecoder, family: EncoderFamily, kind: HeadKind) -> Architecture {
    let head = head_name(family, kind);
    let inner = match decoder {
        HeadedDecoder::Gpt2(_) => Gpt2LmHead::architecture(),
        HeadedDecoder::Decoder(config) => decoder::architecture(config),
    };
    let names = [
        ("trunk", family.trunk()),
        ("Gpt2", ""),
        ("Decoder", ""),
        ("classifier", head),
        ("out_proj", ""),
    ];
    let names = names.map(|(here, there)| (here.to_string(), there.to_string()));
    Architecture {
        output_layers: vec![head.into()],
        names: names.into_iter().chain(inner.names).collect(),
        ..inner
    }
}
