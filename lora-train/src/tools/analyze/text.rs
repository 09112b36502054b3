//! The report as text: a table by matrix.

use super::report::{AnalysisReport, MatrixReport};
use crate::progress::Escaped;
use std::fmt::{Display, Formatter, Result};

impl Display for AnalysisReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let names = self.matrices.iter().map(|m| m.matrix.chars().count());
        let width = names.max().unwrap_or(6).max(6);
        for (index, adapter) in self.adapters.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(
                f,
                "{} on {}",
                Escaped::line(adapter),
                Escaped::line(&self.model)
            )?;
            writeln!(
                f,
                "{:width$}  {:>4}  {:>9}  {:>9}  {:>11}  {:>10}  {:>10}  {:>10}",
                "matrix", "rank", "|W|", "|dW|", "|UWV| by dW", "by W", "random", "|dW|/|UWV|"
            )?;
            for matrix in &self.matrices {
                let update = &matrix.updates[index];
                let last = update.between.last();
                let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
                writeln!(
                    f,
                    "{:width$}  {:>4}  {:>9.4}  {:>9.4}  {:>11}  {:>10}  {:>10}  {:>10}{}",
                    Escaped::line(&matrix.matrix).to_string(),
                    update.rank,
                    matrix.weight_norm,
                    update.norm,
                    number(last.map(|between| between.update)),
                    number(last.and_then(|between| between.weight)),
                    number(last.map(|between| between.random)),
                    number(update.amplification),
                    if update.dora {
                        "  without DoRA's magnitude"
                    } else {
                        ""
                    },
                )?;
            }
        }
        if self.adapters.len() == 2 {
            writeln!(
                f,
                "\nsubspace similarity of the two, by the directions of A, of B, and at random"
            )?;
            self.write_similarities(f, width)?;
        }
        for name in &self.skipped {
            writeln!(f, "{}: in one of the adapters only", Escaped::line(name))?;
        }
        Ok(())
    }
}

/// Returns the similarity of the first directions, and of all.
fn ends(grid: Option<&Vec<Vec<f64>>>) -> [String; 2] {
    let first = grid.and_then(|grid| grid.first()?.first());
    let all = grid.and_then(|grid| grid.last()?.last());
    [first, all].map(|value| value.map_or("-".into(), |value| format!("{value:.3}")))
}

impl AnalysisReport {
    fn write_similarities(&self, f: &mut Formatter<'_>, width: usize) -> Result {
        writeln!(
            f,
            "{:width$}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
            "matrix", "ranks", "A (1,1)", "A (all)", "B (1,1)", "B (all)", "random", "(all)"
        )?;
        for matrix in &self.matrices {
            let [a, b, random] = grids(matrix).map(ends);
            let ranks = matrix.updates.iter().map(|update| update.rank.to_string());
            writeln!(
                f,
                "{:width$}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
                Escaped::line(&matrix.matrix).to_string(),
                ranks.collect::<Vec<_>>().join(", "),
                a[0],
                a[1],
                b[0],
                b[1],
                random[0],
                random[1]
            )?;
        }
        Ok(())
    }
}

/// Returns the grids of the directions of A, of B, and of random ones.
pub(super) fn grids(matrix: &MatrixReport) -> [Option<&Vec<Vec<f64>>>; 3] {
    match &matrix.similarity {
        None => [None; 3],
        Some(found) => [found.a.as_ref(), found.b.as_ref(), found.random.as_ref()],
    }
}
