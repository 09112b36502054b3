//! Heat maps of the similarities, one file by matrix and kind.

use super::report::{AnalysisReport, MatrixReport};
use super::text::grids;
use crate::TrainError;
use crate::tools::names::digits;
use crate::tools::svg::{HeatMap, heat_maps};
use lora_core::files::{Overwrite, write_dir, write_file};
use std::collections::BTreeSet;
use std::path::Path;

/// Longest name of a matrix in that of a file.
const NAME_LENGTH: usize = 150;

/// Checks that a directory with figures holds nothing else, since it is replaced as a whole.
///
/// # Errors
/// [`TrainError::Config`] that names what else is there.
pub(super) fn check(path: &Path) -> Result<(), TrainError> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(TrainError::io(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_named = KINDS
            .iter()
            .any(|kind| name.starts_with(&format!("{kind}-")));
        if !is_file || !is_named || !name.ends_with(".svg") {
            let message = format!(
                "is {}, which has {name}: a directory is replaced only if it has nothing but figures of `lora analyze`; \
                 give another one",
                path.display()
            );
            return Err(TrainError::config("svg", message));
        }
    }
    Ok(())
}

/// Kinds of figures, with which the names of their files begin: two adapters compared, and an update with its weight.
const KINDS: [&str; 2] = ["adapters", "weight"];

/// Writes the figures to a directory, and returns their number.
pub(super) fn write(
    report: &AnalysisReport,
    path: &Path,
    overwrite: Overwrite,
) -> Result<usize, TrainError> {
    check(path)?;
    let mut names = BTreeSet::new();
    write_dir(path, overwrite, |dir| {
        for matrix in &report.matrices {
            for (name, svg) in figures(matrix, &mut names) {
                write_file(&dir.join(name), Overwrite::Refuse, |file| {
                    file.write_all(svg.as_bytes())
                })?;
            }
        }
        Ok::<(), TrainError>(())
    })?;
    Ok(names.len())
}

/// Returns the figures of a matrix, with the names of their files, which `names` gets.
fn figures(matrix: &MatrixReport, names: &mut BTreeSet<String>) -> Vec<(String, String)> {
    let [adapters, weight] = KINDS;
    let mut figures = Vec::new();
    let name = &matrix.matrix;
    let titles = [
        "right-singular directions of A",
        "left-singular directions of B",
        "random Gaussian matrices",
    ];
    let maps: Vec<HeatMap> = titles
        .into_iter()
        .zip(grids(matrix))
        .filter_map(|(title, grid)| {
            Some(HeatMap {
                title,
                rows: "i, of the first adapter",
                columns: "j, of the second",
                values: grid?,
            })
        })
        .collect();
    if !maps.is_empty() {
        let title = format!("φ(i, j) of two adapters: {name}");
        let file = file_name(adapters, name, None, names);
        figures.push((file, heat_maps(&title, &maps)));
    }
    for (index, update) in matrix.updates.iter().enumerate() {
        let Some(overlap) = &update.weight_similarity else {
            continue;
        };
        let maps = [
            ("directions of ΔW", &overlap.update),
            ("random directions", &overlap.random),
        ];
        let maps = maps.map(|(title, values)| HeatMap {
            title,
            rows: "i, of W",
            columns: "j, of the update",
            values,
        });
        let title = format!("φ(i, j) of W and ΔW, rank {}: {name}", update.rank);
        let which = (matrix.updates.len() > 1).then_some(index + 1);
        let file = file_name(weight, name, which, names);
        figures.push((file, heat_maps(&title, &maps)));
    }
    figures
}

/// Returns the name of a figure's file: names of modules come from files. One that would be another's, on any system, ends in digits of
/// a hash.
fn file_name(
    kind: &str,
    matrix: &str,
    which: Option<usize>,
    names: &mut BTreeSet<String>,
) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let cleaned = matrix.trim_end_matches(']').replace('[', "-");
    let cleaned = cleaned.chars().take(NAME_LENGTH);
    let cleaned: String = cleaned.map(|c| if plain(c) { c } else { '_' }).collect();
    let which = which.map(|which| format!("-{which}")).unwrap_or_default();
    let mut name = format!("{kind}{which}-{cleaned}");
    if !names.insert(name.to_ascii_lowercase()) {
        name = format!("{name}-{}", digits(matrix));
        names.insert(name.to_ascii_lowercase());
    }
    name + ".svg"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_file_leads_nowhere_and_belongs_to_one_matrix() {
        let mut names = BTreeSet::new();
        let mut name = |matrix: &str, which| file_name("weight", matrix, which, &mut names);
        assert_eq!(
            name("transformer.h.0.attn.c_attn[q]", Some(2)),
            "weight-2-transformer.h.0.attn.c_attn-q.svg"
        );
        assert_eq!(name("../../x\n", None), "weight-.._.._x_.svg");
        // All of them would have one name.
        let long = "x".repeat(NAME_LENGTH);
        let (first, second) = (format!("{long}.a"), format!("{long}.b"));
        let same = ["a[q]", "a-q", "A-q", "a[q", &long, &first, &second];
        let files: BTreeSet<String> = same
            .iter()
            .map(|matrix| name(matrix, None).to_ascii_lowercase())
            .collect();
        assert_eq!(files.len(), same.len(), "{files:?}");
    }
}
