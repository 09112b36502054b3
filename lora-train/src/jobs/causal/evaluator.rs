//! Evaluation of a language model during training.

use super::answers::{Answers, METRIC};
use super::loss::evaluate;
use crate::TrainError;
use crate::jobs::batches::EvalBatches;
use crate::jobs::job::{Evaluate, Metrics};
use crate::task::CausalLmTask;
use crate::trainer::ranks::Ranks;
use lora_models::CausalLm;

/// Evaluation of a language model on a data file.
pub(crate) struct CausalEvaluator {
    /// Examples of the file.
    pub batches: EvalBatches,
    /// Questions with each answer, for MNLI.
    pub answers: Option<Answers>,
}

impl<M: CausalLm> Evaluate<CausalLmTask<M>> for CausalEvaluator {
    fn len(&self) -> usize {
        self.batches.examples.len() + self.answers.as_ref().map_or(0, Answers::len)
    }

    fn metrics(
        &self,
        task: &CausalLmTask<M>,
        ranks: &dyn Ranks,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError> {
        let (mut metrics, _) = evaluate(&self.batches, task, ranks, None, progress)?;
        if let Some(answers) = &self.answers {
            let before = self.batches.examples.len();
            let accuracy = answers.accuracy(task, ranks, &mut |done| progress(before + done))?;
            metrics.insert(METRIC.into(), accuracy);
        }
        Ok(metrics)
    }
}
