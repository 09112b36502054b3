//! Numbers of each matrix.

use super::matrices::{Matrix, Updates, layer};
use super::report::{Between, MatrixReport, Similarity, UpdateReport, WeightOverlap};
use crate::TrainError;
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use burn::tensor::Device;
use lora_core::file::StoredFactors;
use lora_core::spectrum::{DenseWeight, Directions, Singular};
use lora_core::{AdaptedModule, LayerKind, LoraConfig, TargetModules, base_value};
use lora_models::Pretrained;

/// Settings of the measurement.
pub(super) struct Measure {
    /// Number of the weight's directions to compare with.
    pub directions: usize,
    /// Seed of the random controls.
    pub seed: u64,
}

/// Measured matrices, and the names of those that only one of two adapters has.
pub(super) struct Measured {
    pub matrices: Vec<MatrixReport>,
    pub skipped: Vec<String>,
}

impl Measure {
    /// Measures the selected matrices of a model. Names and shapes are compared with the model before any weight is read.
    pub fn all<M: Pretrained>(
        &self,
        sources: &Sources,
        config: &M::Config,
        load: &M::Options,
        updates: &Updates<'_>,
        device: &Device,
        screen: &Screen,
    ) -> Result<Measured, TrainError> {
        let outline = M::init_meta(config, load, device)?;
        let (matrices, skipped) = updates.matrices(&outline.lora_architecture())?;
        let targets = TargetModules::names(updates.modules());
        // The rank does not matter: only places and shapes are asked for.
        let on_modules = LoraConfig::new(1).with_targets(targets);
        let places = outline.attach_report(&on_modules)?.modules;
        for matrix in &matrices {
            place(matrix, &places)?;
        }
        drop(outline);
        let (model, report) = M::load_weights(config.clone(), sources.model.path(), load, device)?;
        screen.line(&format!("model     {}", model.load_summary(&report)));
        let model = model.prepare(&on_modules)?;
        let mut bar = screen.bar("matrices", matrices.len());
        let mut reports = Vec::with_capacity(matrices.len());
        for (done, matrix) in matrices.iter().enumerate() {
            bar.set(done);
            let place = place(matrix, &places)?;
            let weight = dense(&model, matrix, place)?;
            reports.push(self.matrix(matrix, &weight)?);
        }
        bar.finish();
        report.weight_files.check()?;
        Ok(Measured {
            matrices: reports,
            skipped,
        })
    }

    fn matrix(&self, matrix: &Matrix, weight: &DenseWeight) -> Result<MatrixReport, TrainError> {
        let name = matrix.name();
        let most = matrix.factors.iter().map(StoredFactors::rank).max();
        let of_weight = weight.singular(self.directions.max(most.unwrap_or(1)));
        let updates = matrix.factors.iter().zip(&matrix.dora);
        let updates = updates.map(|(factors, &dora)| UpdateReport {
            dora,
            ..self.update(&name, factors, weight, of_weight.as_ref())
        });
        let similarity = match &matrix.factors[..] {
            [first, second] => Some(self.similarity(&name, first, second)),
            _ => None,
        };
        Ok(MatrixReport {
            layer: layer(&matrix.module),
            shape: weight.shape(),
            weight_norm: weight.norm(),
            updates: updates.collect(),
            similarity,
            matrix: name,
        })
    }

    fn update(
        &self,
        name: &str,
        factors: &StoredFactors,
        weight: &DenseWeight,
        of_weight: Option<&Singular>,
    ) -> UpdateReport {
        let [d_out, d_in] = weight.shape();
        let mut report = UpdateReport {
            rank: factors.rank(),
            norm: factors.update_norm(),
            singular_values: Vec::new(),
            amplification: None,
            between: Vec::new(),
            weight_similarity: None,
            dora: false,
        };
        let Some(Singular { left, right }) = factors.singular() else {
            return report;
        };
        let count = left.count();
        let random = |side: &str, dimension: usize| {
            let name = format!("{name}.{side}");
            Directions::random(self.seed, &name, count, dimension)
        };
        let (Some(random_left), Some(random_right)) =
            (random("left", d_out), random("right", d_in))
        else {
            return report;
        };
        let of_update = weight.norms_between(&left, &right);
        let of_random = weight.norms_between(&random_left, &random_right);
        let own = of_weight.map(|own| energies(own.left.values()));
        let sizes = energies(left.values());
        let between = steps(count).into_iter().map(|directions| {
            let at = directions - 1;
            Between {
                directions,
                update: of_update[at],
                // Directions of a weight of a lower rank than the update add nothing.
                weight: own
                    .as_ref()
                    .and_then(|own| own.get(at.min(own.len() - 1)).copied()),
                random: of_random[at],
                amplification: ratio(sizes[at], of_update[at]),
            }
        });
        report.between = between.collect();
        report.amplification = ratio(report.norm, of_update[count - 1]);
        report.weight_similarity = of_weight.map(|own| {
            let grid = |directions: &Directions| {
                let mut grid = own.right.similarity(directions);
                grid.truncate(self.directions);
                grid
            };
            WeightOverlap {
                update: grid(&right),
                random: grid(&random_right),
            }
        });
        report.singular_values = left.values().to_vec();
        report
    }

    fn similarity(&self, name: &str, first: &StoredFactors, second: &StoredFactors) -> Similarity {
        let grid = |x: Option<Directions>, y: Option<Directions>| Some(x?.similarity(&y?));
        let d_in = first.shape()[1];
        let random = |which: &str, factors: &StoredFactors| {
            let name = format!("{name}.{which}");
            Directions::random(self.seed, &name, factors.rank(), d_in)
        };
        Similarity {
            a: grid(first.input_directions(), second.input_directions()),
            b: grid(first.output_directions(), second.output_directions()),
            random: grid(random("first", first), random("second", second)),
        }
    }
}

/// Returns the root of the sum of squares of the first 1, 2, … values.
fn energies(values: &[f64]) -> Vec<f64> {
    let squares = values.iter().scan(0.0, |sum, value| {
        *sum += value * value;
        Some(*sum)
    });
    squares.map(f64::sqrt).collect()
}

fn ratio(size: f64, of: f64) -> Option<f64> {
    Some(size / of).filter(|ratio| ratio.is_finite())
}

/// Returns 1, 2, 4, … and the last.
fn steps(last: usize) -> Vec<usize> {
    let powers = (0..usize::BITS).map(|power| 1 << power);
    powers
        .take_while(|&step| step < last)
        .chain([last])
        .collect()
}

/// Returns the module of a matrix in the model, and compares its shape with the updates'.
fn place<'a>(
    matrix: &Matrix,
    places: &'a [AdaptedModule],
) -> Result<&'a AdaptedModule, TrainError> {
    let name = &matrix.module;
    let ends = |place: &&AdaptedModule| place.module.ends_with(&format!(".{name}"));
    let exact = places.iter().find(|place| place.module == *name);
    let refuse = |message: String| TrainError::config("adapter", message);
    let place = exact.or_else(|| places.iter().find(ends));
    let place = place.ok_or_else(|| refuse(format!("has `{name}`, which the model lacks")))?;
    let [d_in, d_out] = place.shape;
    let rows = matrix.part.as_ref().map_or(d_out, |(_, rows)| rows.len());
    for factors in &matrix.factors {
        let [own_out, own_in] = factors.shape();
        if [own_out, own_in] != [rows, d_in] {
            return Err(refuse(format!(
                "updates `{}` by a matrix [{own_out}, {own_in}], but the model's is [{rows}, {d_in}]; give the model that it was \
                 trained on",
                matrix.name()
            )));
        }
    }
    Ok(place)
}

/// Reads the weight of a matrix, in the orientation of an update.
fn dense<M: Pretrained>(
    model: &M,
    matrix: &Matrix,
    place: &AdaptedModule,
) -> Result<DenseWeight, TrainError> {
    let values = base_value(model, &place.parameter).ok_or_else(|| {
        let message = format!("the values of `{}` cannot be read", place.module);
        TrainError::burn(message)
    })?;
    let [d_in, d_out] = place.shape;
    debug_assert!(matches!(
        place.kind,
        LayerKind::Linear | LayerKind::Embedding
    ));
    Ok(match &matrix.part {
        None => DenseWeight::from_fn(d_out, d_in, |i, j| f64::from(values[j * d_out + i])),
        Some((_, rows)) => DenseWeight::from_fn(rows.len(), d_in, |i, j| {
            f64::from(values[j * d_out + rows[i]])
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_powers_of_two_and_the_last() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(8), [1, 2, 4, 8]);
        assert_eq!(steps(6), [1, 2, 4, 6]);
    }

    #[test]
    fn a_ratio_to_zero_is_none() {
        assert_eq!((ratio(1.0, 0.0), ratio(0.0, 0.0)), (None, None));
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(energies(&[3.0, 4.0]), [3.0, 5.0]);
    }
}
