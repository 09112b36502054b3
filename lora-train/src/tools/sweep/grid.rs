//! Options that vary, and their combinations.

use super::saved::RUNS;
use crate::TrainError;
use crate::jobs::TrainPlan;
use crate::jobs::ranges::at_least_one;
use crate::options::TrainOptions;
use crate::tools::names::file_name;
use std::collections::BTreeSet;
use std::path::PathBuf;
use toml::{Table, Value};

/// Largest number of runs: more are a slip of the keyboard.
const MOST_RUNS: usize = 10_000;
/// Longest name of a run's directory, without the digits of a hash.
const NAME_LENGTH: usize = 120;

/// Option with its values.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    key: String,
    /// Values as they were given, and as a recipe has them.
    values: Vec<(String, Value)>,
}

/// Options that vary.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// Options that vary together; groups are combined.
    groups: Vec<Vec<Axis>>,
    seeds: usize,
}

/// Run of a sweep.
#[derive(Clone, Debug)]
pub(super) struct PlannedRun {
    /// Values of the options that vary, in the order of the keys.
    pub values: Vec<String>,
    pub seed: u64,
    /// Options, with the output of the run.
    pub options: TrainOptions,
    /// Name of its directory.
    pub name: String,
}

impl Grid {
    /// Reads the options that vary.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a key that recipes do not have, a value that does not fit it, and keys that are given twice.
    pub fn new(grid: &[String], zip: &[String], seeds: Option<usize>) -> Result<Self, TrainError> {
        let axes = |option, texts: &[String]| -> Result<Vec<Axis>, TrainError> {
            texts.iter().map(|text| axis(option, text)).collect()
        };
        let zipped = axes("zip", zip)?;
        let lengths: Vec<usize> = zipped.iter().map(|axis| axis.values.len()).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            let counts = zipped
                .iter()
                .map(|axis| format!("{} has {}", axis.key, axis.values.len()));
            let counts = counts.collect::<Vec<_>>().join(", ");
            let message = format!("needs as many values of each option: {counts}");
            return Err(TrainError::config("zip", message));
        }
        let mut groups: Vec<Vec<Axis>> = axes("grid", grid)?.into_iter().map(|a| vec![a]).collect();
        if !zipped.is_empty() {
            groups.push(zipped);
        }
        let seeds = at_least_one("seeds", seeds.unwrap_or(1))?;
        let grid = Self { groups, seeds };
        let keys = grid.keys();
        if let Some(key) = keys
            .iter()
            .find(|key| keys.iter().filter(|k| k == key).count() > 1)
        {
            let message = format!("has `{key}` twice; give all its values at once");
            return Err(TrainError::config("grid", message));
        }
        if seeds > 1 && keys.contains(&"seed") {
            let message = "is given beside a grid of seeds; give one";
            return Err(TrainError::config("seeds", message));
        }
        Ok(grid)
    }

    /// Returns the keys of the options that vary.
    pub fn keys(&self) -> Vec<&str> {
        let axes = self.groups.iter().flatten();
        axes.map(|axis| axis.key.as_str()).collect()
    }

    /// Returns the runs on these options, the last group fastest, then the seeds. All of their options are checked.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub fn plans(&self, base: &TrainOptions) -> Result<Vec<PlannedRun>, TrainError> {
        let output = base.output.clone().ok_or_else(|| {
            TrainError::config(
                "output",
                "is missing: give --output, or `output` in the recipe",
            )
        })?;
        let lengths = self.groups.iter().map(|group| group[0].values.len());
        let combinations = lengths.clone().fold(1usize, usize::saturating_mul);
        if combinations.saturating_mul(self.seeds) > MOST_RUNS {
            let message = format!("makes more than {MOST_RUNS} runs");
            return Err(TrainError::config("grid", message));
        }
        let lengths: Vec<usize> = lengths.collect();
        let mut runs = Vec::new();
        for combination in 0..combinations {
            let mut rest = combination;
            let mut at = vec![0; lengths.len()];
            for (at, length) in at.iter_mut().zip(&lengths).rev() {
                (*at, rest) = (rest % length, rest / length);
            }
            let chosen = self.groups.iter().zip(&at);
            let chosen =
                chosen.flat_map(|(group, &at)| group.iter().map(move |a| (a, &a.values[at])));
            let chosen: Vec<(&Axis, &(String, Value))> = chosen.collect();
            for offset in 0..self.seeds {
                runs.push(self.run(base, &output, &chosen, offset as u64)?);
            }
        }
        let mut names = BTreeSet::new();
        if let Some(run) = runs.iter().find(|run| !names.insert(&run.name)) {
            let message = format!("has two runs of one name, {}", run.name);
            return Err(TrainError::config("grid", message));
        }
        Ok(runs)
    }

    fn run(
        &self,
        base: &TrainOptions,
        output: &std::path::Path,
        chosen: &[(&Axis, &(String, Value))],
        offset: u64,
    ) -> Result<PlannedRun, TrainError> {
        let table = chosen
            .iter()
            .map(|(axis, (_, value))| (axis.key.clone(), value.clone()));
        let mut options = options_of(table.collect())
            .map_err(|error| TrainError::config("grid", error))?
            .or(base.clone())?;
        let seed = options.seed.unwrap_or(42).wrapping_add(offset);
        options.seed = Some(seed);
        options.resume = false;
        options.allow_changed_data = base.allow_changed_data;
        options.overwrite = false;
        let values: Vec<String> = chosen.iter().map(|(_, (text, _))| text.clone()).collect();
        // The seed comes first: a long name is cut at its end.
        let others = chosen.iter().filter(|(axis, _)| axis.key != "seed");
        let others = others.map(|(axis, (text, _))| format!("_{}-{text}", axis.key));
        let name = format!("seed-{seed}{}", others.collect::<String>());
        let name = file_name(&name, NAME_LENGTH);
        let path: PathBuf = output.join(RUNS).join(&name);
        options.output = Some(path);
        // Checks the options of the adapter, too.
        TrainPlan::new(options.clone()).map_err(|error| match error {
            TrainError::Lora(error) => TrainError::config("grid", error.to_string()),
            other => other,
        })?;
        Ok(PlannedRun {
            values,
            seed,
            options,
            name,
        })
    }
}

/// Reads `key=value,value` or `key=value|value`.
fn axis(option: &str, text: &str) -> Result<Axis, TrainError> {
    let refuse = |message: String| Err(TrainError::config(option, message));
    let Some((key, values)) = text.split_once('=') else {
        return refuse(format!(
            "is `{text}`, expected an option and its values, such as `rank=1,2,4`"
        ));
    };
    let key = key.trim().replace('-', "_");
    if ["output", "overwrite"].contains(&key.as_str()) {
        return refuse(format!(
            "has `{key}`, which is the same for all runs: each has its own directory"
        ));
    }
    let texts = split(values);
    if texts.is_empty() {
        return refuse(format!("has no value of `{key}`"));
    }
    let mut values = Vec::with_capacity(texts.len());
    for text in texts {
        // Zipped options repeat values: one rank for several targets.
        if option == "grid" && values.iter().any(|(other, _)| *other == text) {
            return refuse(format!("has `{text}` of `{key}` twice"));
        }
        match value(&key, &text) {
            Ok(value) => values.push((text, value)),
            Err(message) => return refuse(format!("has `{key}={text}`: {message}")),
        }
    }
    Ok(Axis { key, values })
}

/// Splits at `|`, or without any at commas, but not within brackets and quotes.
fn split(text: &str) -> Vec<String> {
    let at = |separator: char| -> Vec<String> {
        let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0usize, false);
        for character in text.chars() {
            match character {
                '"' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            if character == separator && depth == 0 && !quoted {
                parts.push(String::new());
            } else if let Some(part) = parts.last_mut() {
                part.push(character);
            }
        }
        parts
    };
    let mut parts = at('|');
    if parts.len() == 1 {
        parts = at(',');
    }
    parts.iter_mut().for_each(|part| *part = part.trim().into());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns the value that a recipe has for a text: a number or another value of TOML, or else a text, or else a list.
fn value(key: &str, text: &str) -> Result<Value, String> {
    let literal = |text: &str| -> Option<Value> {
        let table: Table = format!("value = {text}").parse().ok()?;
        // A line break would make a second key.
        Some(table)
            .filter(|table| table.len() == 1)?
            .remove("value")
    };
    let of_list = |part: &str| literal(part).unwrap_or_else(|| Value::String(part.into()));
    let list = text.split(',').map(str::trim).map(of_list);
    let candidates = [
        literal(text),
        Some(Value::String(text.into())),
        Some(Value::Array(list.collect())),
    ];
    let mut message = None;
    for candidate in candidates.into_iter().flatten() {
        let table = Table::from_iter([(key.to_string(), candidate.clone())]);
        match options_of(table) {
            Ok(_) => return Ok(candidate),
            Err(error) => message = message.or(Some(error)),
        }
    }
    Err(message.unwrap_or_default())
}

fn options_of(table: Table) -> Result<TrainOptions, String> {
    let options: Result<TrainOptions, toml::de::Error> = table.try_into();
    options.map_err(|error| error.message().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TargetNames;

    fn base() -> TrainOptions {
        TrainOptions {
            model: Some("base".into()),
            data: vec!["train.jsonl".into()],
            output: Some("out".into()),
            warmup_steps: Some(5),
            seed: Some(7),
            ..TrainOptions::default()
        }
    }

    fn plans(grid: &[&str], zip: &[&str], seeds: usize) -> Result<Vec<PlannedRun>, TrainError> {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        Grid::new(&texts(grid), &texts(zip), Some(seeds))?.plans(&base())
    }

    #[test]
    fn every_value_is_combined_with_every_other_and_every_seed() {
        let runs = plans(&["rank=1,2", "targets=q|q,v"], &[], 3).unwrap();
        assert_eq!(runs.len(), 12);
        let values: Vec<(&str, &str, u64)> = runs
            .iter()
            .map(|run| (run.values[0].as_str(), run.values[1].as_str(), run.seed))
            .collect();
        assert_eq!(
            values[..4],
            [("1", "q", 7), ("1", "q", 8), ("1", "q", 9), ("1", "q,v", 7)]
        );
        let last = &runs[11].options;
        assert_eq!((last.rank, last.seed), (Some(2), Some(9)));
        assert_eq!(last.targets, Some(TargetNames::Text("q,v".into())));
        let mut names: Vec<&String> = runs.iter().map(|run| &run.name).collect();
        assert_eq!(names[0], "seed-7_rank-1_targets-q");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 12);
    }

    #[test]
    fn zipped_options_vary_together() {
        let runs = plans(&["lr=1e-3,1e-4"], &["rank=8|4", "targets=q|q,v"], 1).unwrap();
        let values: Vec<String> = runs.iter().map(|run| run.values.join(" ")).collect();
        assert_eq!(values, ["1e-3 8 q", "1e-3 4 q,v", "1e-4 8 q", "1e-4 4 q,v"]);
        let error = plans(&[], &["rank=8,4", "targets=q"], 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("rank has 2, targets has 1"), "{error}");
    }

    #[test]
    fn values_have_the_types_of_their_keys() {
        let run = |grid: &str| plans(&[grid], &[], 1).unwrap().remove(0).options;
        assert_eq!(run("alpha=8").alpha, Some(8.0));
        assert_eq!(run("layers=0,2|1").layers, Some(vec![0, 2]));
        assert!(run("dora=true").dora);
        assert_eq!(
            run("modules-to-save=a,b|c").modules_to_save,
            Some(vec!["a".into(), "b".into()])
        );
        let pattern = "regex:.*(query|value)";
        assert_eq!(
            run(&format!("targets={pattern}")).targets,
            Some(TargetNames::Text(pattern.into()))
        );
        assert_eq!(run("rank_pattern={c_fc = 2}").rank_pattern["c_fc"], 2);
        // One kind of warm-up replaces the other.
        let options = run("warmup_ratio=0.1");
        assert_eq!(
            (options.warmup_steps, options.warmup_ratio),
            (None, Some(0.1))
        );
        assert_eq!(
            run("targets=query,value|").targets,
            Some(TargetNames::Text("query,value".into()))
        );
    }

    #[test]
    fn a_slip_is_named_before_the_first_run() {
        for (grid, words) in [
            ("rnak=1,2", "rnak"),
            ("rank=one", "rank=one"),
            ("rank", "expected an option and its values"),
            ("rank=", "no value"),
            ("rank=1,2,1", "twice"),
            ("output=a,b", "its own directory"),
            ("resume=true", "resume"),
            ("lr=0.1,-2", "lr"),
            ("dropout=0.1,2", "dropout"),
            ("rank=4,0", "rank"),
        ] {
            let error = plans(&[grid], &[], 1).unwrap_err().to_string();
            assert!(error.contains(words), "{grid}: {error}");
        }
        assert!(plans(&["rank=1", "rank=2"], &[], 1).is_err());
        assert!(plans(&["seed=1,2"], &[], 2).is_err());
        assert!(plans(&["seed=1,2"], &[], 1).unwrap()[1].name == "seed-2");
    }

    #[test]
    fn long_values_that_differ_at_their_end_have_directories_of_their_own() {
        let targets = |end: &str| format!("regex:.*({}{end})", "query|".repeat(40));
        let grid = format!("targets={}, {}", targets("key"), targets("value"));
        let grid = grid.replace('|', ".");
        let runs = plans(&[&grid], &[], 3).unwrap();
        let names: BTreeSet<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names.len(), 6);
        for run in &runs {
            let start = format!("seed-{}_targets-", run.seed);
            assert!(run.name.starts_with(&start), "{}", run.name);
        }
    }
}
