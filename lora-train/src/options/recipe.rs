//! Recipes: options of a training run as a TOML file.

use super::{TokenSource, TrainOptions};
use crate::TrainError;
use std::path::{Component, Path, PathBuf};

/// Options of a run on the command line, and its recipe.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RunOptions {
    /// Recipe: a TOML file with the options below as keys, with `_` for `-`; flags override it.
    pub recipe: Option<PathBuf>,
    /// Options of `lora train`.
    #[command(flatten)]
    pub options: TrainOptions,
}

impl RunOptions {
    /// Returns the options with those of the recipe.
    ///
    /// # Errors
    /// Fails if the recipe cannot be read.
    pub fn resolve(self) -> Result<TrainOptions, TrainError> {
        match &self.recipe {
            Some(recipe) => self.options.or(TrainOptions::from_recipe(recipe)?),
            None => Ok(self.options),
        }
    }
}

/// Largest recipe in bytes.
const RECIPE_LIMIT: u64 = 1 << 20;

impl TrainOptions {
    /// Reads a recipe. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is not TOML or has an unknown key; the message names line and key.
    pub fn from_recipe(path: &Path) -> Result<Self, TrainError> {
        let malformed = |error: &dyn std::fmt::Display| {
            TrainError::config("recipe", format!("{}: {error}", path.display()))
        };
        let bytes = lora_core::files::read_bounded(path, RECIPE_LIMIT)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| malformed(&error))?;
        let mut options: Self = toml::from_str(text).map_err(|error| malformed(&error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        options.map_paths(folder, |path| Ok(folder.join(path)))?;
        Ok(options)
    }

    /// Replaces all paths. A model given by its name on the Hub is not a path; `folder` is the directory to look in.
    fn map_paths(
        &mut self,
        folder: &Path,
        map: impl Fn(&Path) -> Result<PathBuf, TrainError>,
    ) -> Result<(), TrainError> {
        let hub_name = self.model.take_if(|model| is_hub_name(model, folder));
        let template = &mut self.reading.chat_template;
        let files = [&mut self.adapter, &mut self.eval_data, template];
        let folders = [&mut self.model, &mut self.output];
        let single = files.into_iter().chain(folders).flatten();
        // A share at the end of a path stays there.
        for path in single.chain(&mut self.data) {
            *path = map(path)?;
        }
        self.model = hub_name.or(self.model.take());
        if let Some(TokenSource::File(path)) = &mut self.new_tokens {
            *path = map(path)?;
        }
        Ok(())
    }

    /// Makes all paths absolute, so that the options no longer depend on the working directory.
    ///
    /// # Errors
    /// Fails if the working directory does not exist.
    pub fn absolute(mut self) -> Result<Self, TrainError> {
        self.map_paths(Path::new(""), |path| {
            std::path::absolute(path).map_err(TrainError::io(path))
        })?;
        Ok(self)
    }

    /// Fills missing options from a recipe.
    ///
    /// Options that exclude each other, such as the two kinds of warm-up, are replaced together: one of them
    /// on the command line hides both in the recipe.
    ///
    /// # Errors
    /// Fails if a path is not Unicode.
    pub fn or(self, mut recipe: Self) -> Result<Self, TrainError> {
        if self.warmup_steps.is_some() || self.warmup_ratio.is_some() {
            recipe.warmup_steps = None;
            recipe.warmup_ratio = None;
        }
        if self.batch_size.is_some() || self.batch_tokens.is_some() {
            recipe.batch_size = None;
            recipe.batch_tokens = None;
        }
        if self.evaluates() {
            recipe.eval_data = None;
            recipe.eval_split = None;
        }
        // Only given options are serialized: the command line's keys replace the recipe's.
        let as_table = |options: &Self| {
            toml::Table::try_from(options)
                .map_err(|error| TrainError::config("recipe", error.to_string()))
        };
        let (resume, allow_changed_data) = (self.resume, self.allow_changed_data);
        let mut merged = as_table(&recipe)?;
        merged.extend(as_table(&self)?);
        let mut options: Self = merged
            .try_into()
            .map_err(|error: toml::de::Error| TrainError::config("recipe", error.to_string()))?;
        options.resume = resume;
        options.allow_changed_data = allow_changed_data;
        Ok(options)
    }

    /// Writes the options as a recipe.
    ///
    /// # Errors
    /// Fails if a path is not Unicode.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|error| TrainError::config("recipe", error.to_string()))
    }
}

/// Returns true if `model`, given in a recipe in `folder`, is a name on the Hub: it looks like one, and there is no such
/// directory.
fn is_hub_name(model: &Path, folder: &Path) -> bool {
    let mut components = model.components();
    let plain = components.all(|component| matches!(component, Component::Normal(_)));
    plain && model.components().count() <= 2 && !folder.join(model).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_recipe_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        let recipe = "model = \"base\"\nrank = 4\nalpha = 32.0\ntargets = [\"c_attn[q,v]\"]\n\
                      warmup_steps = 500\nno_shuffle = true\n[rank_pattern]\nc_fc = 2\n";
        std::fs::write(&path, recipe).unwrap();
        // A model that is no directory is a name on the Hub.
        let named = TrainOptions::from_recipe(&path).unwrap();
        assert_eq!(named.model, Some("base".into()));
        std::fs::create_dir(dir.path().join("base")).unwrap();
        let recipe = TrainOptions::from_recipe(&path).unwrap();
        assert_eq!(recipe.model, Some(dir.path().join("base")));
        let flags = TrainOptions {
            rank: Some(16),
            warmup_ratio: Some(0.1),
            resume: true,
            ..TrainOptions::default()
        };
        let options = flags.or(recipe).unwrap();
        assert_eq!((options.rank, options.alpha), (Some(16), Some(32.0)));
        assert_eq!(
            (options.warmup_steps, options.warmup_ratio),
            (None, Some(0.1))
        );
        assert!(options.no_shuffle && options.resume);
        assert_eq!(options.rank_pattern["c_fc"], 2);
        let again: TrainOptions = toml::from_str(&options.to_toml().unwrap()).unwrap();
        assert_eq!(
            again,
            TrainOptions {
                resume: false,
                ..options
            }
        );
    }

    #[test]
    fn tokens_are_a_count_or_a_file_beside_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        let read = |value: &str| {
            std::fs::write(&path, format!("new_tokens = {value}\n")).unwrap();
            TrainOptions::from_recipe(&path)
        };
        // As it is written today, and as in recipes of earlier runs.
        for count in ["3", "\"3\""] {
            let options = read(count).unwrap();
            assert_eq!(options.new_tokens, Some(TokenSource::Count(3)));
            assert_eq!(options.to_toml().unwrap(), "new_tokens = 3\n");
        }
        let options = read("\"tokens.txt\"").unwrap();
        let file = TokenSource::File(dir.path().join("tokens.txt"));
        assert_eq!(options.new_tokens, Some(file));
        let error = read("-1").unwrap_err().to_string();
        assert!(error.contains("a number of tokens, or a file"), "{error}");
        let relative = TrainOptions {
            new_tokens: Some("tokens.txt".parse().unwrap()),
            ..TrainOptions::default()
        };
        let absolute = relative.absolute().unwrap().new_tokens.unwrap();
        assert!(absolute.file().unwrap().is_absolute());
        assert_eq!("./3".parse(), Ok(TokenSource::File("./3".into())));
    }

    #[test]
    fn data_is_a_file_or_a_list_of_files_beside_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            TrainOptions::from_recipe(&path).unwrap()
        };
        let at = |name: &str| dir.path().join(name);
        let one = read("data = \"a.jsonl\"\neval_data = \"e.jsonl\"\n");
        assert_eq!(one.data, [at("a.jsonl")]);
        assert!(one.to_toml().unwrap().contains("data = \""));
        let two = read("data = [\"a.jsonl:0.7\", \"b.csv:0.3\"]\neval_split = 5\n");
        assert_eq!(two.data, [at("a.jsonl:0.7"), at("b.csv:0.3")]);
        let again: TrainOptions = toml::from_str(&two.to_toml().unwrap()).unwrap();
        assert_eq!(again, two);
        // The command line replaces the whole list, and either kind of evaluation data.
        let merged = two.clone().or(one.clone()).unwrap();
        assert_eq!((merged.data, merged.eval_data), (two.data, None));
        let flags = TrainOptions {
            eval_split: Some("0.25".parse().unwrap()),
            ..TrainOptions::default()
        };
        let merged = flags.or(one).unwrap();
        assert_eq!(merged.eval_data, None);
        assert_eq!(
            merged
                .to_toml()
                .unwrap()
                .matches("eval_split = 0.25")
                .count(),
            1
        );
    }

    #[test]
    fn an_unknown_key_of_a_recipe_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        std::fs::write(&path, "rnak = 4\n").unwrap();
        let error = TrainOptions::from_recipe(&path).unwrap_err().to_string();
        assert!(error.contains("rnak"), "{error}");
    }
}
