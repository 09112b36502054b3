//! Runs of several ranks: comparison of their options and data, and the description of their exchange.

use super::plan::TrainPlan;
use super::resumed::RunRecord;
use crate::TrainError;
use crate::data::DataDigest;
use crate::trainer::ranks::{ExchangeReport, Ranks, agree, digest_of_files};
use lora_models::checkpoint::WeightFiles;

/// Checks that all ranks have the same version, options and data. Places of files may differ between machines.
///
/// # Errors
/// [`TrainError::Rank`] with the rank that differs; [`TrainError::Config`] if the options cannot be written as TOML.
pub(super) fn agree_on_run(
    ranks: &dyn Ranks,
    plan: &TrainPlan,
    record: &RunRecord,
) -> Result<(), TrainError> {
    if ranks.is_alone() {
        return Ok(());
    }
    let o = &plan.options;
    let given = [
        ("eval_data", o.eval_data.is_some()),
        ("adapter", o.adapter.is_some()),
        ("new_tokens", o.new_tokens.is_some()),
    ];
    let given = given.map(|(name, given)| format!("{name} is given: {given}\n"));
    let evaluation = record.eval_data.as_ref();
    let facts = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        (
            "set of options",
            o.without_files().to_toml()? + &given.concat(),
        ),
        ("fingerprint of the run", record.fingerprint.clone()),
        ("set of training data", record.data.lines()),
        (
            "set of evaluation data",
            evaluation.map_or_else(String::new, DataDigest::lines),
        ),
    ];
    agree(ranks, &facts)
}

/// Checks that all ranks have read the same base model.
///
/// # Errors
/// [`TrainError::Rank`] with the rank that differs; [`TrainError::Io`] if a file cannot be read.
pub(super) fn agree_on_base(ranks: &dyn Ranks, files: &WeightFiles) -> Result<(), TrainError> {
    if ranks.is_alone() {
        return Ok(());
    }
    agree(ranks, &[("base model", digest_of_files(files.paths())?)])
}

/// Describes ranks that have no batch in any step; `None` if all have one.
pub(super) fn idle(ranks: &dyn Ranks, accumulation: usize) -> Option<String> {
    let size = ranks.size();
    (accumulation < size).then(|| {
        format!(
            "warning: {} of {size} ranks have nothing to do, because the number of batches in a step is {accumulation}: give \
             --grad-accumulation {size} or a multiple, which counts the batches of all ranks",
            size - accumulation
        )
    })
}

/// Describes the exchange with other ranks in a run; `None` without any.
pub(super) fn exchanged(ranks: &dyn Ranks, report: ExchangeReport) -> Option<String> {
    let ExchangeReport {
        steps,
        bytes,
        seconds,
        waiting,
    } = report;
    (steps > 0 && !ranks.is_alone()).then(|| {
        let mean = |value: f64| value / steps as f64;
        let mib = mean(bytes as f64) / f64::from(1 << 20);
        let (exchange, wait) = (mean(seconds) * 1e3, mean(waiting) * 1e3);
        format!(
            "exchange  {mib:.2} MiB sent by each rank in a step, in {exchange:.1} ms; waited {wait:.1} ms for other ranks"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::ranks::{Alone, Threads};

    #[test]
    fn ranks_without_a_batch_are_told() {
        let ranks = Threads::new(4);
        let warning = idle(&ranks[0], 3).unwrap();
        assert!(warning.contains("1 of 4 ranks") && warning.contains("--grad-accumulation 4"));
        assert_eq!((idle(&ranks[0], 4), idle(&Alone, 1)), (None, None));
        assert_eq!(exchanged(&ranks[0], ExchangeReport::default()), None);
        let report = ExchangeReport {
            steps: 4,
            bytes: 4 << 20,
            seconds: 0.01,
            waiting: 0.0,
        };
        let line = exchanged(&ranks[0], report).unwrap();
        assert!(
            line.contains("1.00 MiB") && line.contains("in 2.5 ms"),
            "{line}"
        );
    }
}
