//! Learning rate schedules: warm-up, then linear, cosine or constant.

use burn::optim::LearningRate;
use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use serde::{Deserialize, Serialize};

/// Course of the learning rate after the warm-up. The formulas are those of transformers'
/// `get_linear_schedule_with_warmup` and its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Falls linearly to zero at the last step.
    #[default]
    Linear,
    /// Falls along half a cosine to zero at the last step.
    Cosine,
    /// Stays at the peak.
    Constant,
}

/// A learning rate schedule with linear warm-up, for Burn's learner.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: ScheduleKind,
    peak: LearningRate,
    warmup: usize,
    total: usize,
    step: usize,
}

impl Schedule {
    /// Creates a schedule that rises from zero to `peak` over `warmup` of `total` steps.
    pub fn new(kind: ScheduleKind, peak: LearningRate, warmup: usize, total: usize) -> Self {
        Self {
            kind,
            peak,
            warmup,
            total,
            step: 0,
        }
    }

    /// Sets the schedule to its state after `step` steps.
    pub fn starting_at(mut self, step: usize) -> Self {
        self.step = step;
        self
    }

    /// Returns the same schedule with another peak.
    pub(crate) fn with_peak(&self, peak: LearningRate) -> Self {
        Self {
            peak,
            ..self.clone()
        }
    }

    /// Returns the peak learning rate.
    pub(crate) fn peak(&self) -> LearningRate {
        self.peak
    }

    /// Returns the learning rate at `step`, counted from 0, as a share of the peak.
    ///
    /// ```
    /// use lora_train::trainer::{Schedule, ScheduleKind};
    /// let schedule = Schedule::new(ScheduleKind::Linear, 1.0, 2, 10);
    /// let rates: Vec<f64> = [0, 1, 2, 6, 10].map(|step| schedule.multiplier(step)).into();
    /// assert_eq!(rates, [0.0, 0.5, 1.0, 0.5, 0.0]);
    /// ```
    pub fn multiplier(&self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let after = (step - self.warmup) as f64;
        let length = self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.kind {
            ScheduleKind::Linear => {
                let left = self.total.saturating_sub(step) as f64;
                left / length
            }
            ScheduleKind::Cosine => {
                let progress = after / length;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
            ScheduleKind::Constant => 1.0,
        }
    }
}

impl LrScheduler for Schedule {
    fn step(&mut self) -> LearningRate {
        let rate = self.peak * self.multiplier(self.step);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar::<usize>("step") {
            self.step = step;
        }
    }
}
