//! Heat maps of the similarities, one file by matrix and kind.

use super::report::{AnalysisReport, MatrixReport};
use super::text::grids;
use crate::TrainError;
use crate::tools::svg::{HeatMap, heat_maps};
use lora_core::files::{Overwrite, write_dir, write_file};
use std::path::Path;

/// Writes the figures to a directory, and returns their number.
pub(super) fn write(
    report: &AnalysisReport,
    path: &Path,
    overwrite: Overwrite,
) -> Result<usize, TrainError> {
    let mut count = 0;
    write_dir(path, overwrite, |dir| {
        for matrix in &report.matrices {
            for (name, svg) in figures(matrix) {
                write_file(&dir.join(name), Overwrite::Refuse, |file| {
                    file.write_all(svg.as_bytes())
                })?;
                count += 1;
            }
        }
        Ok::<(), TrainError>(())
    })?;
    Ok(count)
}

/// Returns the figures of a matrix, with the names of their files.
fn figures(matrix: &MatrixReport) -> Vec<(String, String)> {
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
        figures.push((file_name("adapters", name, None), heat_maps(&title, &maps)));
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
        figures.push((file_name("weight", name, which), heat_maps(&title, &maps)));
    }
    figures
}

/// Returns the name of a figure's file: names of modules come from files.
fn file_name(kind: &str, matrix: &str, which: Option<usize>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let cleaned = matrix.trim_end_matches(']').replace('[', "-");
    let cleaned = cleaned
        .chars()
        .take(150)
        .map(|c| if plain(c) { c } else { '_' });
    let which = which.map(|which| format!("-{which}")).unwrap_or_default();
    format!("{kind}{which}-{}.svg", cleaned.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_file_leads_nowhere() {
        assert_eq!(
            file_name("weight", "transformer.h.0.attn.c_attn[q]", Some(2)),
            "weight-2-transformer.h.0.attn.c_attn-q.svg"
        );
        assert_eq!(
            file_name("weight", "../../x\n", None),
            "weight-.._.._x_.svg"
        );
    }
}
