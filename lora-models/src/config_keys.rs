//! Keys of a `config.json`, read one by one, with errors that name the file and the key.

use crate::ModelError;
use crate::activation::Activation;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// The object of a `config.json`.
pub(crate) struct ConfigKeys<'a> {
    path: &'a Path,
    object: Map<String, Value>,
}

impl<'a> ConfigKeys<'a> {
    /// Takes the object of the file at `path`.
    pub(crate) fn new(path: &'a Path, object: Map<String, Value>) -> Self {
        Self { path, object }
    }

    /// Returns the object.
    pub(crate) fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// Returns the object, owned.
    pub(crate) fn into_object(self) -> Map<String, Value> {
        self.object
    }

    /// Builds the error for a value that is not supported.
    pub(crate) fn refuse(
        &self,
        key: &str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> ModelError {
        unsupported(self.path, key, value, expected)
    }

    /// Reads the value of a key; `None` if the key is absent or null.
    ///
    /// # Errors
    /// [`ModelError::Json`] for a value of another type.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ModelError> {
        self.get_or(key, None)
    }

    /// Reads the value of a key; `default` if the key is absent. Null is read as a value, so it suits an `Option` only.
    ///
    /// # Errors
    /// [`ModelError::Json`] for a value of another type.
    pub(crate) fn get_or<T: DeserializeOwned>(
        &self,
        key: &str,
        default: T,
    ) -> Result<T, ModelError> {
        let Some(value) = self.object.get(key) else {
            return Ok(default);
        };
        T::deserialize(value).map_err(|error| {
            let message = format!("`{key}`: {error}");
            ModelError::json(self.path, message)
        })
    }

    /// Reads the value of a key; `default` if the key is absent or null.
    ///
    /// # Errors
    /// [`ModelError::Json`] for a value of another type.
    pub(crate) fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T, ModelError> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// Reads the name of an activation function.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for an unknown name, [`ModelError::Json`] for anything but a name.
    pub(crate) fn activation(&self, key: &str, default: &str) -> Result<Activation, ModelError> {
        let name: Option<String> = self.get(key)?;
        let name = name.as_deref().unwrap_or(default);
        let activation = Activation::from_name(name);
        activation.ok_or_else(|| self.refuse(key, name, Activation::names().join(", ")))
    }

    /// Checks that options without support here are absent, null or false; each is given with its expected value.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for the first that is not.
    pub(crate) fn require_off(&self, options: &[(&str, &str)]) -> Result<(), ModelError> {
        for &(key, expected) in options {
            match self.object.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(value) => return Err(self.refuse(key, value, expected)),
            }
        }
        Ok(())
    }
}

/// Builds the error for a value of a configuration that is not supported.
pub(crate) fn unsupported(
    path: &Path,
    key: &str,
    value: impl ToString,
    expected: impl Into<String>,
) -> ModelError {
    ModelError::UnsupportedConfig {
        path: path.into(),
        key: key.into(),
        value: value.to_string(),
        expected: expected.into(),
    }
}

/// Conditions on the values of a configuration at `path`.
pub(crate) struct Require<'a> {
    pub(crate) path: &'a Path,
}

impl Require<'_> {
    /// Checks one condition on the value of a key.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] if it does not hold.
    pub(crate) fn that(
        &self,
        holds: bool,
        key: &str,
        value: impl ToString,
        expected: impl FnOnce() -> String,
    ) -> Result<(), ModelError> {
        if holds {
            Ok(())
        } else {
            Err(unsupported(self.path, key, value, expected()))
        }
    }
}

/// Checks that sizes are at least 1 and at most their limit; each is given with its key.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] for the first that is not.
pub(crate) fn check_sizes(path: &Path, sizes: &[(&str, usize, usize)]) -> Result<(), ModelError> {
    sizes.iter().try_for_each(|&(key, size, most)| {
        let fits = (1..=most).contains(&size);
        Require { path }.that(fits, key, size, || format!("1 to {most}"))
    })
}

/// Checks that dropout probabilities lie in [0, 1); each is given with its key.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] for the first that does not.
pub(crate) fn check_dropouts(path: &Path, dropouts: &[(&str, f64)]) -> Result<(), ModelError> {
    dropouts.iter().try_for_each(|&(key, probability)| {
        let fits = (0.0..1.0).contains(&probability);
        Require { path }.that(fits, key, probability, || "a probability in [0, 1)".into())
    })
}
