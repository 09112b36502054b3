//! Comparison of the ranks: all must train the same model on the same data with the same options.

use super::Ranks;
use crate::TrainError;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Compares facts, pairs of a name and a value, with those of the other ranks.
///
/// # Errors
/// [`TrainError::Rank`] at all ranks, which names the first rank that differs from rank 0, and the fact.
pub(crate) fn agree(ranks: &dyn Ranks, facts: &[(&str, String)]) -> Result<(), TrainError> {
    if ranks.is_alone() {
        return Ok(());
    }
    // Pairs of strings always have a JSON form.
    let own = serde_json::to_vec(facts).unwrap_or_default();
    let all = ranks.gather(&own)?;
    let differs = |rank, message: String| Err(TrainError::rank(rank, ranks.size(), message));
    let read = |message: &[u8]| serde_json::from_slice::<Vec<(String, String)>>(message).ok();
    let first = read(&all[0]).unwrap_or_default();
    for (rank, message) in all.iter().enumerate().skip(1) {
        let facts = read(message).unwrap_or_default();
        let same_names = first
            .iter()
            .map(|(name, _)| name)
            .eq(facts.iter().map(|(name, _)| name));
        if !same_names {
            return differs(
                rank,
                "runs another version of the program than rank 0".into(),
            );
        }
        for ((name, first), (_, own)) in first.iter().zip(&facts) {
            if first != own {
                let message = format!(
                    "has another {name} than rank 0, and all ranks must have the same: rank 0 has {}; rank {rank} has {}",
                    only(first, own),
                    only(own, first)
                );
                return differs(rank, message);
            }
        }
    }
    Ok(())
}

/// Returns the lines of a text that another one lacks.
fn only(text: &str, other: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !other.lines().any(|other| other == *line));
    let lines: Vec<&str> = lines.collect();
    if lines.is_empty() {
        "nothing more".into()
    } else {
        lines.join(", ")
    }
}

/// Returns names, lengths and checksums of files, a line each.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn digest_of_files<'a>(
    paths: impl Iterator<Item = &'a Path>,
) -> Result<String, TrainError> {
    let mut lines = Vec::new();
    for path in paths {
        let (length, sum) = checksum(path).map_err(TrainError::io(path))?;
        // Machines may keep it in different directories.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{name} of {length} bytes with checksum {sum:08x}"));
    }
    Ok(lines.join("\n"))
}

fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut length, mut sum) = (0, 0);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok((length, sum));
        }
        sum = crc32c::crc32c_append(sum, bytes);
        let read = bytes.len();
        length += read as u64;
        reader.consume(read);
    }
}

/// Returns the checksum of all trained values of a module in training.
///
/// # Errors
/// If values cannot be read back.
pub(in crate::trainer) fn digest_of_trained<M: Module>(module: &M) -> Result<String, TrainError> {
    let mut digest = Digest {
        values: 0,
        sum: Ok(0),
    };
    module.visit(&mut digest);
    Ok(format!(
        "{} values with checksum {:08x}",
        digest.values, digest.sum?
    ))
}

struct Digest {
    values: usize,
    sum: Result<u32, TrainError>,
}

impl ModuleVisitor for Digest {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(sum) = self.sum else { return };
        let value = param.base();
        if !value.is_require_grad() {
            return;
        }
        self.sum = crate::host::values(value).map(|values| {
            self.values += values.len();
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            crc32c::crc32c_append(sum, &bytes)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Threads;
    use super::*;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;
    use std::thread;

    #[test]
    fn the_rank_that_differs_is_named_at_all_ranks() {
        thread::scope(|scope| {
            for rank in Threads::new(3) {
                scope.spawn(move || {
                    let seed = if rank.rank() == 2 { 8 } else { 7 };
                    let options = |seed: i32| format!("lr = 0.1\nseed = {seed}\n");
                    let same = [("version", "1".to_string()), ("recipe", options(7))];
                    agree(&rank, &same).unwrap();
                    let facts = [("version", "1".to_string()), ("recipe", options(seed))];
                    let error = agree(&rank, &facts).unwrap_err().to_string();
                    for part in ["rank 2 of 3", "another recipe", "seed = 7", "seed = 8"] {
                        assert!(error.contains(part), "{error}");
                    }
                    assert!(!error.contains("lr"), "{error}");
                });
            }
        });
    }

    #[test]
    fn a_checksum_is_that_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, "123456789").unwrap();
        let digest = digest_of_files([file.as_path()].into_iter()).unwrap();
        // The check value of CRC-32C.
        assert_eq!(
            digest,
            "model.safetensors of 9 bytes with checksum e3069283"
        );
    }

    #[test]
    fn only_trained_values_count() {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(3, 5).init(&device);
        let digest = digest_of_trained(&linear).unwrap();
        assert!(digest.starts_with("20 values"), "{digest}");
        assert_eq!(digest_of_trained(&linear.clone()).unwrap(), digest);
        let frozen = digest_of_trained(&linear.no_grad()).unwrap();
        assert!(frozen.starts_with("0 values"), "{frozen}");
    }
}
