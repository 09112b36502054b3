//! Training data of a language model: one file or several, read and tokenized record by record.

use super::data::{Encoding, Examples, encode_records, source_of};
use super::template::chat_template;
use crate::TrainError;
use crate::data::{
    DataFormat, EachExample, Example, Record, RecordUse, Selection, SourceOptions, each_record,
};
use crate::jobs::plan::TrainPlan;
use crate::jobs::run_key::RunKey;
use crate::jobs::session::Base;
use std::path::{Path, PathBuf};

/// Files of the training data, and which of their records are trained on.
pub(super) struct TrainingData<'a> {
    plan: &'a TrainPlan,
    base: &'a Base,
    files: Vec<(PathBuf, SourceOptions)>,
    selection: Selection,
    /// Number of records of all files, if they were counted.
    counted: Option<usize>,
}

/// Results of the files, once they are tokenized.
pub(super) struct Encoded {
    /// Report, and number of examples, of each file.
    pub files: Vec<(String, usize)>,
    /// Records that are held out.
    pub held_out: Vec<Record>,
}

impl<'a> TrainingData<'a> {
    /// Finds the formats of the files. If not all records are trained on, they are counted here, to be drawn.
    ///
    /// # Errors
    /// If the formats are not detected, or are not of one kind, an option does not go with one, or a file is malformed.
    pub fn new(plan: &'a TrainPlan, base: &'a Base) -> Result<Self, TrainError> {
        let reading = &plan.options.reading;
        let mut files: Vec<(PathBuf, SourceOptions)> = Vec::new();
        for path in plan.data.paths() {
            let source = source_of(path, reading, None, base);
            let source = source.map_err(|error| match files.first() {
                // The options go with the first file.
                Some((first, other)) => other_kind(first, other.format, path).unwrap_or(error),
                None => error,
            })?;
            if let Some((first, other)) = files.first()
                && other.format.is_chat() != source.format.is_chat()
            {
                return Err(kinds((first, other.format), (path, source.format)));
            }
            files.push((path.clone(), source));
        }
        let mut data = Self {
            plan,
            base,
            files,
            selection: Selection::default(),
            counted: None,
        };
        let options = plan.selection();
        if !options.takes_all() {
            let mut records = 0;
            data.each(&mut |_| {
                records += 1;
                Ok(())
            })?;
            data.selection = Selection::new(&options, records)?;
            data.counted = Some(records);
        }
        Ok(data)
    }

    /// Returns the formats of the files, in their order.
    pub fn formats(&self) -> impl Iterator<Item = (&Path, DataFormat)> {
        let files = self.files.iter();
        files.map(|(path, source)| (path.as_path(), source.format))
    }

    /// Returns the records that are held out.
    ///
    /// # Errors
    /// If a file cannot be read, or has changed.
    pub fn held_out(&self) -> Result<Vec<Record>, TrainError> {
        let (mut place, mut held_out) = (0, Vec::new());
        if self.plan.options.eval_split.is_none() {
            return Ok(held_out);
        }
        self.each(&mut |record| {
            if self.selection.of(place) == RecordUse::HoldOut {
                held_out.push(record);
            }
            place += 1;
            Ok(())
        })?;
        self.check_count(place)?;
        Ok(held_out)
    }

    /// Refuses another number of records than were counted.
    fn check_count(&self, records: usize) -> Result<(), TrainError> {
        match self.counted {
            Some(counted) if counted != records => {
                let message = "changed while it was read; leave the data as it is during a run";
                Err(TrainError::data_format(self.plan.data.first(), message))
            }
            _ => Ok(()),
        }
    }

    /// Adds all that the tokens depend on to a key: contents of the files, and options.
    ///
    /// # Errors
    /// If a file of the data or the tokenizer cannot be read.
    pub fn key(&self, mut key: RunKey, length: usize) -> Result<RunKey, TrainError> {
        for (path, source) in &self.files {
            key = key.with("source", source);
            key.file("data", path)?;
        }
        let tokenizer = &self.base.tokenizer;
        let files = self.base.tokenizer_files.clone();
        for (name, bytes) in files.map_or_else(|| tokenizer.read_files(), Ok)? {
            key = key.with_bytes(&name, &bytes);
        }
        let mut reading = self.plan.options.reading.clone();
        if self.files[0].1.format.is_chat() {
            let (given, variables) = (reading.chat_template.take(), &reading.chat_template_kwargs);
            let template = chat_template(self.base, given.as_deref(), variables.as_ref())?;
            for (name, bytes) in template.files() {
                key = key.with_bytes(&name, &bytes);
            }
        }
        Ok(key
            .with("reading", &reading)
            .with("selection", &self.plan.selection())
            .with("special", &(self.base.eos_id(), tokenizer.around()))
            .with("vocabulary", &self.base.info.vocab_size)
            .with("max_length", &length))
    }

    /// Returns the number of all records, where it is known.
    pub fn records(&self) -> Option<usize> {
        self.counted
    }

    /// Calls a function with each record.
    fn each(
        &self,
        each: &mut dyn FnMut(Record) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let mut files = self.files.iter();
        files.try_for_each(|(path, source)| each_record(path, source, each))
    }

    /// Tokenizes the records to train on, in at most `length` tokens each, and calls a function with the examples. Each file is
    /// tokenized by itself: where texts are put end to end, no example has texts of two.
    ///
    /// # Errors
    /// If a record cannot be read or tokenized, a file has nothing to learn, or a file changes meanwhile.
    pub fn encode(&self, length: usize, each: EachExample<'_>) -> Result<Encoded, TrainError> {
        let reading = &self.plan.options.reading;
        let format = self.files[0].1.format;
        let encoding = Encoding::new(format, reading, self.base, length)?;
        let (mut place, mut examples) = (0, 0);
        let mut encoded = Encoded {
            files: Vec::new(),
            held_out: Vec::new(),
        };
        for (path, source) in &self.files {
            let mut encoder = encoding.encoder()?;
            let before = examples;
            each_record(path, source, &mut |record| {
                let used = self.selection.of(place);
                place += 1;
                match used {
                    RecordUse::Train => encoder.push(&record, &mut |example| {
                        let example = example.at(examples);
                        examples += 1;
                        each(example)
                    }),
                    RecordUse::HoldOut => {
                        encoded.held_out.push(record);
                        Ok(())
                    }
                    RecordUse::LeaveOut => Ok(()),
                }
            })?;
            encoded.files.push((encoder.finish()?, examples - before));
        }
        self.check_count(place)?;
        if examples == 0 {
            let message = "none of the drawn records has anything to learn";
            return Err(TrainError::data_empty(self.plan.data.first(), message));
        }
        Ok(encoded)
    }

    /// Returns the examples to train on, in memory.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn in_memory(&self, length: usize) -> Result<(Vec<Example>, Encoded), TrainError> {
        let mut examples = Vec::new();
        let encoded = self.encode(length, &mut |example| {
            examples.push(example);
            Ok(())
        })?;
        Ok((examples, encoded))
    }

    /// Tokenizes the records that are held out.
    ///
    /// # Errors
    /// If a record cannot be tokenized, or nothing to learn is left.
    pub fn evaluation(&self, records: Vec<Record>, length: usize) -> Result<Examples, TrainError> {
        let format = self.files[0].1.format;
        let reading = &self.plan.options.reading;
        encode_records(records, format, reading, self.base, length)
    }
}

/// Creates the error for files of two kinds.
fn kinds(first: (&Path, DataFormat), other: (&Path, DataFormat)) -> TrainError {
    let kind = |(path, format): (&Path, DataFormat)| {
        let kind = if format.is_chat() {
            "conversations"
        } else {
            "texts"
        };
        format!("{} has {kind} (`{format}`)", path.display())
    };
    let message = format!(
        "has two kinds of files: {}, and {}; give files of one kind",
        kind(first),
        kind(other)
    );
    TrainError::config("data", message)
}

/// Returns the error that a file is of another kind than the first one, if it is.
fn other_kind(first: &Path, format: DataFormat, path: &Path) -> Option<TrainError> {
    let other = DataFormat::detect(path).ok()?;
    (other.is_chat() != format.is_chat()).then(|| kinds((first, format), (path, other)))
}
