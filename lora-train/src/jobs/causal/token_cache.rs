//! Training data in memory, or tokenized once into a file beside the run.

use super::training::{Encoded, TrainingData};
use crate::TrainError;
use crate::data::{
    ExampleSet, Rejected, TokenFile, TokenFileWriter, TokenLimits, count_lines, file_bytes,
};
use crate::jobs::output::tokens_of;
use crate::jobs::plan::TrainPlan;
use crate::jobs::run_key::RunKey;
use crate::jobs::session::Base;
use crate::options::DataCache;
use crate::progress::Screen;
use std::path::Path;

/// Number of bytes of all files from which on the tokens are on disk.
const LARGE: u64 = 256 << 20;

/// Reports and numbers of examples of the data files, as the file of tokens keeps them.
type Reports = Vec<(String, usize)>;

/// Tokenizes the training data in at most `length` tokens an example, or takes the tokens of an earlier run.
///
/// # Errors
/// If the data is malformed, or the file of tokens cannot be written.
pub(super) fn tokenized(
    training: &TrainingData<'_>,
    (plan, base): (&TrainPlan, &Base),
    length: usize,
    screen: &Screen,
) -> Result<(ExampleSet, Encoded), TrainError> {
    if !is_on_disk(training, plan)? {
        let (examples, encoded) = training.in_memory(length)?;
        return Ok((ExampleSet::Memory(examples), encoded));
    }
    let path = tokens_of(&plan.output);
    let shown = path.display();
    let version = RunKey::default().with("version", &env!("CARGO_PKG_VERSION"));
    let key = training.key(version, length)?.finish();
    let limits = TokenLimits {
        vocabulary: base.info.vocab_size,
        length,
    };
    let open = || TokenFile::open::<Reports>(&path, &key, limits, plan.data.paths());
    match open() {
        Ok((file, files)) if files.len() == plan.data.paths().len() => {
            let examples = file.len();
            screen.line(&format!(
                "tokens    {shown}: {examples} examples of an earlier run"
            ));
            let held_out = training.held_out()?;
            return Ok((
                ExampleSet::File(Box::new(file)),
                Encoded { files, held_out },
            ));
        }
        Ok(_) | Err(Rejected::Missing) => {}
        Err(reason) => screen.line(&format!("tokens    {shown}: {reason}; it is written anew")),
    }
    let encoded = write(training, (plan, &path), (&key, limits), length, screen)?;
    let refused = |reason: Rejected| {
        let message = format!("is disk, but {shown} is of no use: {reason}; give memory");
        TrainError::config("data_cache", message)
    };
    let (file, _) = open().map_err(refused)?;
    let (examples, mib) = (file.len(), file_bytes(&path)? as f64 / f64::from(1 << 20));
    screen.line(&format!(
        "tokens    {shown}: {examples} examples in {mib:.1} MiB"
    ));
    Ok((ExampleSet::File(Box::new(file)), encoded))
}

/// Writes the file of tokens, with progress by lines.
fn write(
    training: &TrainingData<'_>,
    (plan, path): (&TrainPlan, &Path),
    (key, limits): (&str, TokenLimits),
    length: usize,
    screen: &Screen,
) -> Result<Encoded, TrainError> {
    let files = plan.data.paths();
    let lines = files.iter().map(|path| count_lines(path));
    let lines: Vec<usize> = lines.collect::<Result<_, _>>()?;
    let mut bar = screen.bar("tokens", lines.iter().sum());
    let mut writer = TokenFileWriter::create(path, key, limits, files)?;
    let encoded = training.encode(length, &mut |example| {
        let origin = example.origin();
        let before = files.iter().zip(&lines);
        let before = before.take_while(|(path, _)| *path != origin.path());
        let before: usize = before.map(|(_, lines)| lines).sum();
        bar.set(before + origin.line());
        writer.add(&example)
    })?;
    bar.finish();
    writer.finish(&encoded.files)?;
    Ok(encoded)
}

/// Returns true if the tokens are to be on disk.
///
/// # Errors
/// [`TrainError::Config`] if they are to be there, and a file is read as a whole.
fn is_on_disk(training: &TrainingData<'_>, plan: &TrainPlan) -> Result<bool, TrainError> {
    let whole = training.formats().find(|(_, format)| !format.is_streamed());
    match (plan.options.data_cache.unwrap_or_default(), whole) {
        (DataCache::Memory, _) | (DataCache::Auto, Some(_)) => Ok(false),
        (DataCache::Disk, None) => Ok(true),
        (DataCache::Disk, Some((path, format))) => {
            let message = format!(
                "is disk, but {} is `{format}`, which is read as a whole; give memory, or JSON Lines, CSV, TSV or plain text",
                path.display()
            );
            Err(TrainError::config("data_cache", message))
        }
        (DataCache::Auto, None) => {
            let bytes = plan.data.paths().iter().map(|path| file_bytes(path));
            let bytes: Vec<u64> = bytes.collect::<Result<_, _>>()?;
            Ok(bytes.iter().sum::<u64>() >= LARGE)
        }
    }
}
