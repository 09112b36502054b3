//! Names of an encoder's modules in transformers.

use super::head::{HeadKind, has_dense};
use crate::deberta::DebertaModel;
use crate::encoder::{EncoderConfig, EncoderFamily};
use crate::gpt2::Gpt2LmHead;
use lora_core::Architecture;

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
        names.push(("pooler", "bert.pooler"));
    }
    if !has_dense(config, kind) {
        names.push(("out_proj", ""));
    }
    Architecture {
        output_layers: ["classifier", "classifier.dense", "classifier.out_proj"]
            .map(String::from)
            .to_vec(),
        fused: DebertaModel::fused(config),
        names: names
            .into_iter()
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .collect(),
        conv1d: Vec::new(),
        vocabulary: vec![format!(
            "{}.embeddings.word_embeddings",
            config.family.trunk()
        )],
    }
}

/// Returns the name of the head in transformers.
pub(super) fn head_name(config: &EncoderConfig, kind: HeadKind) -> &'static str {
    match (&config.decoder, kind) {
        (Some(_), HeadKind::Sequence) => "score",
        _ => "classifier",
    }
}

/// Returns the names for a decoder, whose head is a projection alone.
fn of_decoder(config: &EncoderConfig, kind: HeadKind) -> Architecture {
    let head = head_name(config, kind);
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
