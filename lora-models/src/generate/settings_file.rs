//! Settings for text generation that come with a model: `generation_config.json`, or else the same keys of an old
//! `config.json`.

use super::config::EarlyStopping;
use super::settings::GenerationSettings;
use crate::ModelError;
use crate::checkpoint::bounded::read_json;
use crate::config_keys::ConfigKeys;
use crate::export::{CONFIG_FILE, GENERATION_FILE};
use lora_core::files::Directory;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Limit for the file in bytes.
const LIMIT: u64 = 4 << 20;
/// Number of most likely tokens that transformers samples from, unless a file says another.
const USUAL_TOP_K: usize = 50;

/// Settings without support here that change the text, each with the values that change nothing beside null.
const REFUSED: &[(&str, &[&str])] = &[
    ("assistant_early_exit", &[]),
    ("constraints", &[]),
    ("diversity_penalty", &["0", "0.0"]),
    ("dola_layers", &[]),
    ("encoder_no_repeat_ngram_size", &["0"]),
    ("encoder_repetition_penalty", &["1", "1.0"]),
    ("exponential_decay_length_penalty", &[]),
    ("force_words_ids", &[]),
    ("guidance_scale", &["1", "1.0"]),
    ("max_time", &[]),
    ("num_beam_groups", &["1"]),
    ("num_return_sequences", &["1"]),
    ("penalty_alpha", &["0", "0.0"]),
    ("sequence_bias", &[]),
    ("stop_strings", &["[]"]),
    ("token_healing", &["false"]),
    ("top_h", &[]),
    ("watermarking_config", &[]),
];

/// Key of the tokens that end a text.
const EOS: &str = "eos_token_id";

/// Files of a model directory with settings for text generation, as they are read.
#[derive(Clone, Debug)]
pub struct GenerationFile {
    path: PathBuf,
    object: Map<String, Value>,
    /// `config.json`, whose end-of-text tokens count where the other file has none.
    config: Map<String, Value>,
}

impl GenerationFile {
    /// Reads `generation_config.json` of a directory, whose `config.json` has been read. Without that file, the keys of
    /// `config.json` count, as in transformers.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] or [`ModelError::TooLarge`] if the file exists and cannot be read.
    pub fn read(
        dir: impl Into<Directory>,
        config: &Map<String, Value>,
    ) -> Result<Self, ModelError> {
        let dir = dir.into();
        let file = dir.file(GENERATION_FILE);
        let exists = file.exists();
        Ok(Self {
            object: if exists {
                read_json(&file, LIMIT)?
            } else {
                config.clone()
            },
            path: if exists {
                file.path().into()
            } else {
                dir.file(CONFIG_FILE).path().into()
            },
            config: config.clone(),
        })
    }

    /// Returns the name of the file that the settings are from.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Returns the name of the file that the stop tokens are from.
    ///
    /// # Errors
    /// As [`stop_tokens`](Self::stop_tokens).
    pub fn name_of_stop_tokens(&self) -> Result<String, ModelError> {
        let own = tokens(&ConfigKeys::new(&self.path, self.object.clone()), EOS)?;
        Ok(match own {
            Some(_) => self.name(),
            None => CONFIG_FILE.into(),
        })
    }

    /// Returns the settings of the files.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a setting without support that would change the text, [`ModelError::Json`] for a
    /// value of another type.
    pub fn settings(&self) -> Result<GenerationSettings, ModelError> {
        let keys = ConfigKeys::new(&self.path, self.object.clone());
        for (key, neutral) in REFUSED {
            let Some(value) = self.object.get(*key).filter(|value| !value.is_null()) else {
                continue;
            };
            if !neutral.contains(&value.to_string().as_str()) {
                let expected = "no such setting; \
                                `ignore_generation_config` leaves all settings of the file out";
                return Err(keys.refuse(key, value, expected));
            }
        }
        let mut settings = GenerationSettings {
            max_length: keys.get("max_length")?,
            max_new_tokens: keys.get("max_new_tokens")?,
            do_sample: keys.get("do_sample")?,
            num_beams: keys.get("num_beams")?,
            early_stopping: early_stopping(&keys)?,
            length_penalty: keys.get("length_penalty")?,
            temperature: keys.get("temperature")?,
            top_k: keys.get("top_k")?,
            top_p: keys.get("top_p")?,
            min_p: keys.get("min_p")?,
            typical_p: keys.get("typical_p")?,
            epsilon_cutoff: keys.get("epsilon_cutoff")?,
            eta_cutoff: keys.get("eta_cutoff")?,
            no_repeat_ngram_size: keys.get("no_repeat_ngram_size")?,
            repetition_penalty: keys.get("repetition_penalty")?,
            bad_words_ids: keys.or("bad_words_ids", Vec::new())?,
            min_length: keys.get("min_length")?,
            min_new_tokens: keys.get("min_new_tokens")?,
            forced_bos_token_id: keys.get("forced_bos_token_id")?,
            forced_eos_token_id: tokens(&keys, "forced_eos_token_id")?.unwrap_or_default(),
            suppress_tokens: tokens(&keys, "suppress_tokens")?.unwrap_or_default(),
            begin_suppress_tokens: tokens(&keys, "begin_suppress_tokens")?.unwrap_or_default(),
            ..self.stop_tokens()?
        };
        if keys.or("renormalize_logits", false)? && settings.num_beams.unwrap_or(1) > 1 {
            let expected = "false with several beams; `ignore_generation_config` leaves all settings of the file out";
            return Err(keys.refuse("renormalize_logits", true, expected));
        }
        settings.top_k = settings
            .top_k
            .or((settings.do_sample == Some(true)).then_some(USUAL_TOP_K));
        Ok(settings)
    }

    /// Returns the tokens that end a text alone: those of the file, or else those of `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Json`] for anything but an id, a list of ids or null.
    pub fn stop_tokens(&self) -> Result<GenerationSettings, ModelError> {
        let own = tokens(&ConfigKeys::new(&self.path, self.object.clone()), EOS)?;
        let config = self.path.with_file_name(CONFIG_FILE);
        let fallback = || tokens(&ConfigKeys::new(&config, self.config.clone()), EOS);
        Ok(GenerationSettings {
            eos_token_id: match own {
                Some(own) => Some(own),
                None => fallback()?,
            },
            ..GenerationSettings::default()
        })
    }
}

/// One id, several or none. Negative ids stand for none.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(i64),
    Many(Vec<i64>),
}

/// Reads the ids of a key; `None` if it is absent or null.
fn tokens(keys: &ConfigKeys<'_>, key: &str) -> Result<Option<Vec<u32>>, ModelError> {
    let ids = match keys.get(key)? {
        None => return Ok(None),
        Some(TokenIds::One(id)) => vec![id],
        Some(TokenIds::Many(ids)) => ids,
    };
    let ids = ids.into_iter().filter_map(|id| u32::try_from(id).ok());
    Ok(Some(ids.collect()))
}

/// Reads `early_stopping`: true, false or `never`.
fn early_stopping(keys: &ConfigKeys<'_>) -> Result<Option<EarlyStopping>, ModelError> {
    let Some(value) = keys.get::<Value>("early_stopping")? else {
        return Ok(None);
    };
    Ok(Some(match &value {
        Value::Bool(true) => EarlyStopping::WhenFull,
        Value::Bool(false) => EarlyStopping::WhenUnlikely,
        Value::String(text) if text == "never" => EarlyStopping::WhenImpossible,
        _ => return Err(keys.refuse("early_stopping", value, "true, false or \"never\"")),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::config::{BeamSearch, GenerationConfig, Sampling, Strategy};
    use super::*;
    use serde_json::json;

    fn file(generation: Option<Value>, config: Value) -> GenerationFile {
        let dir = tempfile::tempdir().unwrap();
        if let Some(generation) = generation {
            std::fs::write(dir.path().join(GENERATION_FILE), generation.to_string()).unwrap();
        }
        GenerationFile::read(dir.path(), config.as_object().unwrap()).unwrap()
    }

    fn settings(generation: Value) -> Result<GenerationSettings, ModelError> {
        file(Some(generation), json!({})).settings()
    }

    fn refused_key(generation: Value) -> String {
        match settings(generation) {
            Err(ModelError::UnsupportedConfig { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stop_tokens_are_those_of_the_file_or_else_of_the_configuration() {
        let ids = |generation, config| file(generation, config).settings().unwrap().eos_token_id;
        assert_eq!(ids(None, json!({"eos_token_id": [0, 7]})), Some(vec![0, 7]));
        let own = Some(json!({"eos_token_id": 5}));
        assert_eq!(ids(own, json!({"eos_token_id": [0, 7]})), Some(vec![5]));
        let none = Some(json!({"temperature": 0.5}));
        assert_eq!(ids(none, json!({"eos_token_id": 3})), Some(vec![3]));
        assert_eq!(ids(None, json!({})), None);
        assert_eq!(ids(None, json!({"eos_token_id": -1})), Some(vec![]));
        assert!(matches!(
            settings(json!({"eos_token_id": "x"})),
            Err(ModelError::Json { .. })
        ));
    }

    #[test]
    fn keys_of_the_configuration_count_without_the_other_file_alone() {
        let config = json!({"repetition_penalty": 5.0, "num_beams": 3});
        let old = file(None, config.clone()).settings().unwrap();
        assert_eq!(
            (old.repetition_penalty, old.num_beams),
            (Some(5.0), Some(3))
        );
        let new = file(Some(json!({"top_p": 0.5})), config)
            .settings()
            .unwrap();
        assert_eq!((new.repetition_penalty, new.num_beams), (None, None));
    }

    #[test]
    fn settings_become_the_options_that_they_are_in_transformers() {
        let sampled = settings(json!({"do_sample": true, "temperature": 0.7, "max_length": 30}));
        let config = sampled.unwrap().config(64, 9).unwrap();
        let expected = Sampling {
            temperature: 0.7,
            top_k: Some(50),
            seed: 9,
            ..Sampling::default()
        };
        assert_eq!(config.strategy, Strategy::Sample(expected));
        assert_eq!((config.room(10), config.max_length), (20, Some(30)));

        let greedy = settings(
            json!({"temperature": 0.7, "top_k": 5, "max_new_tokens": 3, "max_length": 90}),
        );
        let config = greedy.unwrap().config(64, 9).unwrap();
        assert_eq!(config, GenerationConfig::new(3));

        let beams = settings(
            json!({"num_beams": 3, "early_stopping": "never", "min_length": 4, "min_new_tokens": 2}),
        );
        let config = beams.unwrap().config(64, 9).unwrap();
        let expected = BeamSearch {
            beams: 3,
            early_stopping: EarlyStopping::WhenImpossible,
            ..BeamSearch::default()
        };
        assert_eq!(config.strategy, Strategy::Beam(expected));
        assert_eq!(
            (config.rules.min_length, config.rules.min_new_tokens),
            (0, 2)
        );
        let both = settings(json!({"do_sample": true, "num_beams": 2})).unwrap();
        assert!(
            both.config(64, 0)
                .unwrap_err()
                .to_string()
                .contains("num_beams")
        );
    }

    #[test]
    fn settings_without_an_effect_are_not_among_the_entries() {
        let none = json!({"temperature": 0.7, "top_k": 5, "length_penalty": 2.0, "repetition_penalty": 1.0,
            "min_length": 0, "suppress_tokens": [], "unheard_of": 1, "bos_token_id": 0});
        assert_eq!(settings(none).unwrap().entries(), []);
        let some = json!({"do_sample": true, "temperature": 0.7, "eos_token_id": [1, 2]});
        let keys = settings(some).unwrap().entries();
        let expected = [
            ("do_sample", json!(true)),
            ("temperature", json!(0.7)),
            ("top_k", json!(50)),
            ("eos_token_id", json!([1, 2])),
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn settings_without_support_are_refused_by_name_unless_they_change_nothing() {
        assert_eq!(refused_key(json!({"stop_strings": ["x"]})), "stop_strings");
        assert_eq!(
            refused_key(json!({"sequence_bias": [[[1], -1.0]]})),
            "sequence_bias"
        );
        assert_eq!(
            refused_key(json!({"num_beam_groups": 2})),
            "num_beam_groups"
        );
        assert_eq!(
            refused_key(json!({"early_stopping": "soon"})),
            "early_stopping"
        );
        let neutral = json!({"guidance_scale": 1.0, "num_beam_groups": 1, "diversity_penalty": 0.0,
            "stop_strings": null, "encoder_repetition_penalty": 1, "renormalize_logits": true});
        assert_eq!(settings(neutral).unwrap(), GenerationSettings::default());
    }
}
