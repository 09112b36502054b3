//! Reading a model from a Hugging Face directory.

use super::build::{Weights, build};
use super::keys::{EMBEDDING, HEAD, PREFIX, file_name, is_mask_buffer, transpose, trunk};
use super::{Gpt2Config, Gpt2LmHead};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, LoadReport, StrictReader};
use burn::tensor::Device;
use std::collections::HashSet;
use std::path::Path;

impl Gpt2LmHead {
    /// Loads a model from a directory with `config.json` and weights in any form that
    /// [`Checkpoint`] reads, saved with a head or without.
    ///
    /// Every tensor that the configuration calls for must be there in its shape, and nothing else:
    /// only the buffers of the causal mask, and a head that is tied to the embedding, are passed
    /// over. Names and shapes are compared before anything is read; then each tensor is read,
    /// converted to f32 and given to the device, one after another.
    ///
    /// # Errors
    /// As [`Gpt2Config::from_dir`] and [`Checkpoint::open`]; [`ModelError::TensorMissing`],
    /// [`ModelError::TensorUnexpected`], [`ModelError::TensorShape`] or
    /// [`ModelError::TensorDtype`] where the weights are not those of the configuration.
    pub fn load(
        dir: impl AsRef<Path>,
        device: &Device,
    ) -> Result<(Self, Gpt2Config, LoadReport), ModelError> {
        let dir = dir.as_ref();
        let config = Gpt2Config::from_dir(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let mut reader = StrictReader::new(&checkpoint);
        // A file without the prefix lacks the embedding under its full name; a file that lacks both
        // is reported with the full names.
        let bare = EMBEDDING.strip_prefix(PREFIX).unwrap_or(EMBEDDING);
        let strip = if reader.has(bare) { PREFIX } else { "" };

        let mut expected = trunk(&config);
        for (name, _) in &mut expected {
            *name = without(strip, name).to_string();
        }
        let head = (HEAD.to_string(), vec![config.vocab_size, config.n_embd]);
        let mut optional = Vec::new();
        match config.tie_word_embeddings {
            true => optional.push(head),
            false => expected.push(head),
        }
        reader.check(&expected, &optional)?;
        reader.ignore("buffer of the causal mask", is_mask_buffer);
        if config.tie_word_embeddings {
            reader.ignore("tied to the token embedding", |name| name == HEAD);
        }
        refuse_strangers(&reader, &expected)?;

        let mut weights = FromFile {
            reader: &mut reader,
            strip,
        };
        let model = build(&config, device, &mut weights)?;
        let report = reader.finish()?;
        Ok((model, config, report))
    }
}

/// Says what is left over before reading gigabytes, which [`StrictReader::finish`] does after.
fn refuse_strangers(
    reader: &StrictReader<'_>,
    expected: &[(String, Vec<usize>)],
) -> Result<(), ModelError> {
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let mut names = reader.left_over();
    names.retain(|name| !known.contains(name.as_str()));
    match names.is_empty() {
        true => Ok(()),
        false => Err(ModelError::TensorUnexpected { names }),
    }
}

fn without<'a>(prefix: &str, name: &'a str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

struct FromFile<'r, 'c> {
    reader: &'r mut StrictReader<'c>,
    /// What the names in the file lack.
    strip: &'static str,
}

impl Weights for FromFile<'_, '_> {
    fn values(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        if path == HEAD {
            let [d_model, vocab] = [shape[0], shape[1]];
            let tensor = self.reader.take(HEAD, &[vocab, d_model])?;
            return Ok(transpose(&tensor.values, [vocab, d_model]));
        }
        let name = file_name(path);
        let tensor = self.reader.take(without(self.strip, &name), shape)?;
        Ok(tensor.values)
    }
}
