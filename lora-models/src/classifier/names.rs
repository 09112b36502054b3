//! Names of a classifier's modules in transformers.

use super::HeadKind;
use super::head::has_dense;
use crate::deberta::DebertaModel;
use crate::encoder::{EncoderConfig, EncoderFamily};
use crate::gpt2::Gpt2LmHead;
use lora_core::{Architecture, CLASSIFICATION_HEADS};

/// Returns the modules' names in transformers and the output layers.
pub(super) fn architecture(config: &EncoderConfig, kind: HeadKind) -> Architecture {
    if config.decoder.is_some() {
        return of_decoder(config, kind);
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
        (EncoderFamily::Gpt2, HeadKind::Sequence) => score,
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
        _ => "embeddings.word_embeddings",
    };
    format!("{}.{inside}", family.trunk())
}

/// Returns the names for a decoder, whose head is a projection alone.
fn of_decoder(config: &EncoderConfig, kind: HeadKind) -> Architecture {
    let head = head_name(config.family, kind);
    let names = [
        ("trunk", config.family.trunk()),
        ("Gpt2", ""),
        ("classifier", head),
        ("out_proj", ""),
    ];
    Architecture {
        output_layers: vec![head.into()],
        names: names
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .to_vec(),
        ..Gpt2LmHead::architecture()
    }
}
