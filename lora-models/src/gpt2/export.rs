//! Writing a GPT-2 as a directory that transformers loads.

use super::Gpt2LmHead;
use super::keys::{EMBEDDING, HEAD};
use crate::checkpoint::ExportReport;
use crate::export::write_model;
use crate::weights::Parameters;
use crate::{ExportOptions, ModelError};
use lora_core::files::Overwrite;
use serde_json::json;
use std::path::Path;

/// A head that is the token embedding is not written, and the configuration says that it is tied; a
/// head that has become another is written, and the configuration says that it is not.
pub(super) fn export(
    model: &Gpt2LmHead,
    dir: &Path,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<ExportReport, ModelError> {
    if model.transformer.prefix.is_some() {
        return Err(ModelError::Export {
            path: dir.into(),
            message:
                "the model has a prefix, which no weight can hold; take it off, and save it by \
                      itself, first"
                    .into(),
        });
    }
    let config = model.config();
    let architecture = Gpt2LmHead::architecture();
    let mut parameters = Parameters::collect(model, &architecture, dir)?;
    let tied = !parameters.has(HEAD)
        || (config.tie_word_embeddings
            && parameters.values(HEAD)? == parameters.values(EMBEDDING)?);
    if tied {
        parameters.remove(HEAD);
    }
    let mut object = config.to_json();
    object.insert("architectures".into(), json!(["GPT2LMHeadModel"]));
    object.insert("tie_word_embeddings".into(), json!(tied));
    write_model(dir, &parameters, object, options, overwrite)
}
