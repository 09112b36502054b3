//! Tokens added to a tokenizer, and the files that have them.

use super::vocabulary::check_added;
use super::{Tokenizer, TokenizerFiles, guarded};
use crate::error::ModelError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tokenizers::AddedToken;

/// File with a whole tokenizer.
const WHOLE: &str = "tokenizer.json";
/// File with the ids of added tokens, beside the vocabulary of a family.
const ADDED: &str = "added_tokens.json";
/// File with the settings of a tokenizer.
const SETTINGS: &str = "tokenizer_config.json";
/// Key of the settings with all added tokens and their rules by id, which replaces the other lists.
const LISTED: &str = "added_tokens_decoder";

impl Tokenizer {
    /// Returns the tokenizer with these tokens, as `add_tokens` of transformers adds them, and its files with them. Tokens that it
    /// has keep their ids. New ones are numbered from the number of tokens, or from the largest id of an added token: an id that
    /// another token has, in a vocabulary with gaps, is refused. They are no special tokens: a decoded text has them, and they are
    /// found in a text after its normalization.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer refuses a token or has its id for another, and the errors of reading its files.
    pub fn with_tokens(&self, tokens: &[String]) -> Result<(Self, TokenizerFiles), ModelError> {
        let mut extended = self.clone();
        let missing = tokens
            .iter()
            .filter(|token| self.token_to_id(token).is_none());
        let missing: Vec<String> = missing.cloned().collect();
        for token in &missing {
            let added = AddedToken::from(token.as_str(), false);
            guarded(&self.path, || {
                extended.inner.add_tokens([added])?;
                Ok(())
            })?;
        }
        let vocabulary = extended.inner.get_vocab(true);
        check_added(&self.path, &vocabulary, missing.iter().map(String::as_str))?;
        extended.vocab_size = vocabulary.len();
        extended.largest_id = vocabulary.into_values().max();
        let mut ids = Vec::new();
        for token in missing {
            let id = extended.token_to_id(&token);
            let id = id.ok_or_else(|| {
                ModelError::tokenizer(&self.path, format!("does not take the token `{token}`"))
            })?;
            ids.push((token, id));
        }
        let mut files = self.read_files()?;
        if files.iter().any(|(name, _)| name == WHOLE) {
            change(self, &mut files, WHOLE, |object| into_whole(object, &ids))?;
        } else {
            if !files.iter().any(|(name, _)| name == ADDED) {
                files.push((ADDED.into(), b"{}".to_vec()));
            }
            change(self, &mut files, ADDED, |object| {
                object.extend(ids.iter().map(|(token, id)| (token.clone(), json!(id))));
            })?;
        }
        // In a list of some added tokens the others would follow, with other ids.
        let listed = extended.inner.get_added_tokens_decoder().into_iter();
        let listed: BTreeMap<u32, AddedToken> = listed.collect();
        if !files.iter().any(|(name, _)| name == SETTINGS) {
            files.push((SETTINGS.into(), b"{}".to_vec()));
        }
        change(self, &mut files, SETTINGS, |object| {
            object.insert(LISTED.into(), json!(listed));
        })?;
        Ok((extended, files))
    }
}

/// Adds tokens to the object of a `tokenizer.json`.
fn into_whole(object: &mut Map<String, Value>, ids: &[(String, u32)]) {
    let added = object.entry("added_tokens").or_insert_with(|| json!([]));
    if let Some(added) = added.as_array_mut() {
        added.extend(ids.iter().map(|(token, id)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": true, "special": false
            })
        }));
    }
}

/// Changes the JSON object of a file.
fn change(
    tokenizer: &Tokenizer,
    files: &mut [(String, Vec<u8>)],
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), ModelError> {
    let Some((_, bytes)) = files.iter_mut().find(|(file, _)| file == name) else {
        return Ok(());
    };
    let object = serde_json::from_slice::<Map<String, Value>>(bytes);
    let mut object = object.map_err(|error| {
        ModelError::tokenizer(
            &tokenizer.path,
            format!("{name} is no JSON object: {error}"),
        )
    })?;
    change(&mut object);
    *bytes = format!("{:#}\n", Value::Object(object)).into_bytes();
    Ok(())
}
