//! Output directory of a training run: one run at a time, and the files of an earlier run until new ones replace them.

use super::plan::TrainPlan;
use crate::TrainError;
use crate::options::TokenSource;
use crate::progress::Screen;
use crate::trainer::CheckpointDir;
use crate::trainer::ranks::Ranks;
use lora_core::files::{DirLock, remove_leftovers};
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the file of the tokens of a run with this output directory.
pub(super) fn tokens_of(output: &Path) -> PathBuf {
    output.join(TOKENS).join("train.tokens")
}

/// Directories with results. Each is replaced at once, when its new content is complete.
const RESULTS: [&str; 3] = ["adapter", "model", "merged"];

/// State of a run. The checkpoints are moved aside first and put back last: if they are aside, then what is in place of them
/// belongs to the new run.
const STATE: [&str; 4] = [CHECKPOINTS, METRICS, RECIPE, TENSORBOARD];
const CHECKPOINTS: &str = "checkpoints";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const RECIPE: &str = "recipe.toml";
const TENSORBOARD: &str = "tensorboard";
/// Directory with the tokens of the training data. They belong to no run: another with the same data and options uses them.
const TOKENS: &str = "tokens";

/// Directory with the state of a run that is being overwritten.
const PREVIOUS: &str = ".previous";

/// Output directory of a run, locked as long as this exists. Of several ranks, the first one has the lock.
///
/// With `--overwrite`, the state of the earlier run goes to `.previous/` when the new one starts, and is put back if the new one
/// ends before its first checkpoint: by an error at once, after a kill by the next run. Results stay until new ones replace
/// them.
pub(super) struct OutputDir {
    path: PathBuf,
    /// Lock of the rank that writes.
    lock: Option<DirLock>,
    // Dropped after the lock.
    _created: Option<Created>,
}

impl OutputDir {
    /// Creates and locks the output directory of a plan, and tidies up after killed runs.
    ///
    /// # Errors
    /// [`LoraError::InUse`](lora_core::LoraError::InUse) if another run writes there; [`TrainError::OutputExists`] for a new
    /// run that may not overwrite what is there; [`TrainError::Config`] if it would overwrite what it reads.
    pub fn open(plan: &TrainPlan, screen: &Screen) -> Result<Self, TrainError> {
        let path = plan.output.clone();
        let refuse = |message: &str| {
            let message = format!("{} {message}", path.display());
            Err(TrainError::config("output", message))
        };
        match path.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                return refuse("is a file; give a directory");
            }
            Err(_) if path.is_symlink() => {
                return refuse("is a link to a directory that does not exist");
            }
            _ => {}
        }
        let created = (!path.exists()).then(|| Created(path.clone()));
        fs::create_dir_all(&path).map_err(TrainError::io(&path))?;
        let lock = DirLock::acquire(&path)?;
        if !lock.is_exclusive() {
            screen.line(&format!(
                "warning: {}: the file system has no locks; start no other run with this output",
                path.display()
            ));
        }
        let output = Self {
            path,
            lock: Some(lock),
            _created: created,
        };
        remove_leftovers(&output.path);
        remove_leftovers(&output.at(CHECKPOINTS));
        remove_leftovers(&output.at(TOKENS));
        if output.settle()? {
            screen.line(&format!(
                "output    {}: the run that was to replace the one there ended before its first checkpoint; the earlier one is back",
                output.path.display()
            ));
        }
        if !plan.options.resume {
            output.check(plan)?;
        }
        Ok(output)
    }

    /// Opens the output directory of a plan at all ranks: the first one as [`open`](Self::open), and the others when it has done so,
    /// to read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        ranks: &dyn Ranks,
        plan: &TrainPlan,
        screen: &Screen,
    ) -> Result<Self, TrainError> {
        let output = if ranks.is_first() {
            Self::open(plan, screen)?
        } else {
            Self {
                path: plan.output.clone(),
                lock: None,
                _created: None,
            }
        };
        ranks.wait()?;
        Ok(output)
    }

    /// Returns the checkpoints.
    pub fn checkpoints(&self) -> CheckpointDir {
        CheckpointDir::new(self.at(CHECKPOINTS))
    }

    /// Returns the path of `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.at(METRICS)
    }

    /// Returns the path of `recipe.toml`.
    pub fn recipe(&self) -> PathBuf {
        self.at(RECIPE)
    }

    /// Returns the directory of the event files for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.at(TENSORBOARD)
    }

    /// Moves the state of an earlier run aside, before a new run writes its own.
    pub fn start(&self) -> Result<(), TrainError> {
        let previous = self.at(PREVIOUS);
        // A run that was to replace this one, and that is now replaced itself.
        remove(&previous)?;
        for name in STATE {
            let from = self.at(name);
            if from.exists() {
                fs::create_dir_all(&previous).map_err(TrainError::io(&previous))?;
                fs::rename(&from, previous.join(name)).map_err(TrainError::io(&from))?;
            }
        }
        Ok(())
    }

    /// Removes the state of the run that is overwritten: all that is left to do is to write the results.
    pub fn replace_state(&self) -> Result<(), TrainError> {
        remove(&self.at(PREVIOUS))
    }

    /// Removes the results of an overwritten run that the new run did not write.
    pub fn remove_results_except(&self, written: &[&Path]) -> Result<(), TrainError> {
        let others = RESULTS.map(|name| self.at(name));
        let mut others = others
            .iter()
            .filter(|path| !written.contains(&path.as_path()));
        others.try_for_each(|path| remove(path))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Refuses to overwrite another run without being told to, and files that this run reads.
    fn check(&self, plan: &TrainPlan) -> Result<(), TrainError> {
        let o = &plan.options;
        let tokens = o.new_tokens.as_ref().and_then(TokenSource::file).cloned();
        let inputs = [&o.model, &o.adapter, &o.eval_data, &tokens];
        let inputs = inputs.into_iter().flatten().chain(plan.data.paths());
        let inputs: Vec<PathBuf> = inputs.filter_map(|path| path.canonicalize().ok()).collect();
        for path in RESULTS.iter().chain(&STATE).map(|name| self.at(name)) {
            if !path.exists() {
                continue;
            }
            if !o.overwrite {
                return Err(TrainError::OutputExists { path });
            }
            let canonical = path.canonicalize().map_err(TrainError::io(&path))?;
            if inputs.iter().any(|input| input.starts_with(&canonical)) {
                let message = format!("would replace {}, which this run reads", path.display());
                return Err(TrainError::config("output", message));
            }
        }
        Ok(())
    }

    /// Puts the state of the earlier run back if the run that was to replace it has no checkpoint. Returns true if it did.
    fn settle(&self) -> Result<bool, TrainError> {
        let previous = self.at(PREVIOUS);
        if !previous.exists() || self.checkpoints().has_last() {
            return Ok(false);
        }
        for name in STATE.iter().rev() {
            let (from, to) = (previous.join(name), self.at(name));
            if from.exists() {
                remove(&to)?;
                fs::rename(&from, &to).map_err(TrainError::io(&to))?;
            }
        }
        remove(&previous)?;
        Ok(true)
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // The next run tries again.
            let _ = self.settle();
        }
    }
}

/// Directory that a run created, and that is removed with the run if nothing is in it.
struct Created(PathBuf);

impl Drop for Created {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Removes a file or directory, if it exists.
fn remove(path: &Path) -> Result<(), TrainError> {
    let removed = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(TrainError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TrainOptions;

    fn open(dir: &Path, options: TrainOptions) -> Result<OutputDir, TrainError> {
        let plan = TrainPlan::new(TrainOptions {
            model: Some("base".into()),
            data: vec!["train.jsonl".into()],
            output: Some(dir.into()),
            ..options
        })
        .unwrap();
        OutputDir::open(&plan, &Screen::quiet())
    }

    fn overwriting(dir: &Path) -> OutputDir {
        let options = TrainOptions {
            overwrite: true,
            ..TrainOptions::default()
        };
        open(dir, options).unwrap()
    }

    /// Files of a run with this text in each.
    fn write_run(dir: &Path, step: &str, text: &str) {
        let step = dir.join(CHECKPOINTS).join(step);
        for folder in [dir.join("adapter"), step.clone(), dir.join(TENSORBOARD)] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("weights"), text).unwrap();
        }
        for name in [METRICS, RECIPE] {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn an_output_with_nothing_in_it_goes_as_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let output = open(&path, TrainOptions::default()).unwrap();
        assert!(path.join(".lock").exists());
        let second = open(&path, TrainOptions::default()).map(|_| ());
        let message = second.unwrap_err().to_string();
        let id = format!("process {} on ", std::process::id());
        assert!(
            message.contains(&id) && message.contains("since 2"),
            "{message}"
        );
        drop(output);
        assert!(!path.exists());
    }

    #[test]
    fn an_earlier_run_is_refused_and_its_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        write_run(dir.path(), "step-00000005", "old");
        let refused = open(dir.path(), TrainOptions::default()).map(|_| ());
        assert!(matches!(refused, Err(TrainError::OutputExists { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }

    /// A kill after any number of the renames, and after writes of the new run without a checkpoint.
    #[test]
    fn a_run_is_back_if_the_one_that_overwrites_it_has_no_checkpoint() {
        for moved in 0..=STATE.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path();
            write_run(path, "step-00000005", "old");
            fs::create_dir(path.join(PREVIOUS)).unwrap();
            for name in &STATE[..moved] {
                fs::rename(path.join(name), path.join(PREVIOUS).join(name)).unwrap();
            }
            if moved == STATE.len() {
                fs::create_dir_all(path.join(CHECKPOINTS).join("best-00000001")).unwrap();
                fs::write(path.join(METRICS), "new").unwrap();
            }
            drop(overwriting(path));
            for name in [
                "adapter/weights",
                "checkpoints/step-00000005/weights",
                "tensorboard/weights",
                METRICS,
                RECIPE,
            ] {
                assert_eq!(read(path.join(name)), "old", "{name} after {moved} renames");
            }
        }
    }

    #[test]
    fn a_run_with_a_checkpoint_replaces_the_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        write_run(path, "step-00000005", "old");
        let output = overwriting(path);
        output.start().unwrap();
        assert_eq!(read(path.join("adapter/weights")), "old");
        let checkpoint = path.join("checkpoints/step-00000002");
        fs::create_dir_all(&checkpoint).unwrap();
        fs::write(path.join(METRICS), "new").unwrap();
        drop(output);
        assert_eq!(read(path.join(METRICS)), "new");
        assert!(path.join(PREVIOUS).exists());

        let output = overwriting(path);
        assert!(!path.join("checkpoints/step-00000005").exists());
        output.replace_state().unwrap();
        output
            .remove_results_except(&[&path.join("model")])
            .unwrap();
        drop(output);
        assert!(checkpoint.exists());
        assert!(!path.join(PREVIOUS).exists() && !path.join("adapter").exists());
    }
}
