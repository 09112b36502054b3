//! Records held out of the training data, to evaluate on.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::draw::drawn;
use crate::error::TrainError;

/// Number of records that are held out for the evaluation, as `test_size` of scikit-learn's `train_test_split`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum EvalSplit {
    /// Share of all records, in (0, 1); the number is rounded up.
    Share(f64),
    /// Number of records, at least 1.
    Count(usize),
}

/// Value in a recipe.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a share in (0, 1), or a number of records"
)]
enum Value {
    Count(usize),
    Share(f64),
}

impl TryFrom<Value> for EvalSplit {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Count(count) if count > 0 => Ok(Self::Count(count)),
            Value::Share(share) if share > 0.0 && share < 1.0 => Ok(Self::Share(share)),
            Value::Count(count) => Err(Self::expected(count)),
            Value::Share(share) => Err(Self::expected(share)),
        }
    }
}

impl From<EvalSplit> for Value {
    fn from(split: EvalSplit) -> Self {
        match split {
            EvalSplit::Share(share) => Self::Share(share),
            EvalSplit::Count(count) => Self::Count(count),
        }
    }
}

impl FromStr for EvalSplit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().map(Value::Count);
        let share = || text.parse().ok().map(Value::Share);
        let value = count.or_else(share);
        value.ok_or_else(|| Self::expected(text))?.try_into()
    }
}

impl EvalSplit {
    /// Seed of the draw, unless another is given.
    pub const SEED: u64 = 42;

    fn expected(found: impl std::fmt::Display) -> String {
        format!("is {found}, expected a share in (0, 1), or a number of records of at least 1")
    }

    /// Returns the number of records to hold out of `records`.
    ///
    /// # Errors
    /// [`TrainError::Config`] if none would be left to train on.
    pub fn count(self, records: usize) -> Result<usize, TrainError> {
        let count = match self {
            Self::Share(share) => (share * records as f64).ceil() as usize,
            Self::Count(count) => count,
        };
        if count < records {
            return Ok(count);
        }
        let message = format!(
            "holds {count} of {records} records out, so that none is left to train on; give fewer, or more data"
        );
        Err(TrainError::config("eval_split", message))
    }
}

/// Use of a record of the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordUse {
    /// Training.
    Train,
    /// Evaluation.
    HoldOut,
    /// No use, because other records were drawn.
    LeaveOut,
}

/// Options that decide which records of the training data are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SelectionOptions {
    /// Records to hold out, and the seed that they are drawn by.
    pub eval_split: Option<(EvalSplit, u64)>,
    /// Maximum number of records to train on, and the seed that they are drawn by.
    pub most: Option<(usize, u64)>,
}

impl SelectionOptions {
    /// Returns true if all records are trained on, however many there are.
    pub fn takes_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Use of each record of the training data, by its place in all files together.
///
/// The evaluation's records are drawn first: they are the same for every number of records to train on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty if all are trained on.
    uses: Vec<RecordUse>,
}

impl Selection {
    /// Selects among `records` records.
    ///
    /// # Errors
    /// As [`EvalSplit::count`].
    pub fn new(options: &SelectionOptions, records: usize) -> Result<Self, TrainError> {
        if options.takes_all() {
            return Ok(Self::default());
        }
        let mut uses = vec![RecordUse::Train; records];
        let mut held_out = 0;
        if let Some((split, seed)) = options.eval_split {
            held_out = split.count(records)?;
            for (use_of, is_held) in uses.iter_mut().zip(drawn(records, Some(held_out), seed)) {
                if is_held {
                    *use_of = RecordUse::HoldOut;
                }
            }
        }
        if let Some((most, seed)) = options.most {
            let mut is_kept = drawn(records - held_out, Some(most), seed).into_iter();
            let left = uses
                .iter_mut()
                .filter(|use_of| **use_of == RecordUse::Train);
            for use_of in left {
                if is_kept.next() == Some(false) {
                    *use_of = RecordUse::LeaveOut;
                }
            }
        }
        Ok(Self { uses })
    }

    /// Returns the use of the record at this place.
    pub fn of(&self, record: usize) -> RecordUse {
        self.uses.get(record).copied().unwrap_or(RecordUse::Train)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_share_or_a_number() {
        assert_eq!("0.05".parse(), Ok(EvalSplit::Share(0.05)));
        assert_eq!("5".parse(), Ok(EvalSplit::Count(5)));
        for bad in ["0", "1.0", "1.5", "-0.1", "nan", "x", ""] {
            let message = bad.parse::<EvalSplit>().unwrap_err();
            assert!(message.contains("a share in (0, 1)"), "{message}");
        }
        // As `train_test_split` rounds.
        assert_eq!(EvalSplit::Share(0.05).count(101).unwrap(), 6);
        assert_eq!(EvalSplit::Count(5).count(6).unwrap(), 5);
        for (split, records) in [(EvalSplit::Count(5), 5), (EvalSplit::Share(0.5), 1)] {
            let message = split.count(records).unwrap_err().to_string();
            assert!(message.contains("none is left to train on"), "{message}");
        }
    }

    #[test]
    fn held_out_records_are_never_trained_on_and_do_not_depend_on_the_number_to_train_on() {
        let selection = |most: Option<usize>, seed| {
            let options = SelectionOptions {
                eval_split: Some((EvalSplit::Share(0.1), seed)),
                most: most.map(|most| (most, 7)),
            };
            Selection::new(&options, 200).unwrap()
        };
        let places = |selection: &Selection, wanted| {
            let places = (0..200).filter(|&at| selection.of(at) == wanted);
            places.collect::<Vec<usize>>()
        };
        let all = selection(None, 42);
        let held = places(&all, RecordUse::HoldOut);
        assert_eq!(held.len(), 20);
        assert_eq!(places(&all, RecordUse::Train).len(), 180);
        let few = selection(Some(30), 42);
        assert_eq!(places(&few, RecordUse::HoldOut), held);
        assert_eq!(places(&few, RecordUse::Train).len(), 30);
        assert_eq!(places(&few, RecordUse::LeaveOut).len(), 150);
        assert_ne!(places(&selection(None, 43), RecordUse::HoldOut), held);
    }
}
