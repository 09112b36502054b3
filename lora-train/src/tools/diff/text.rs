//! The report as text: the differences, and the number of equal modules and tensors.

use super::report::{DiffKind, DiffReport, ModuleDifference, TensorDifference};
use crate::tools::text::{joined, titled};
use std::fmt::{Debug, Display, Formatter, Result};

impl Display for DiffReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut lines = Vec::new();
        for field in &self.config {
            let [x, y] = &field.values;
            lines.push(format!("{}: {x} | {y}", field.field));
        }
        let only_in = |names: &[Vec<String>; 2], how: &str| -> Vec<String> {
            let each = self.paths.iter().zip(names);
            let line = |path| move |name| format!("{name}: {how} {path} only");
            each.flat_map(|(path, names)| names.iter().map(line(path)))
                .collect()
        };
        let modules = self.modules.iter().filter(|module| !module.same);
        let modules: Vec<String> = modules.map(module).collect();
        let tensors = self.tensors.iter().filter(|tensor| !tensor.same);
        let tensors: Vec<String> = tensors.map(tensor).collect();
        let same_tensors = self.tensors.len() - tensors.len();
        let same_modules = self.modules.len() - modules.len();
        let of_tensors = format!("{same_tensors} of {} tensors", self.tensors.len());
        let (what, same) = match self.kind {
            DiffKind::Weights => ("weights", of_tensors),
            DiffKind::Adapters => {
                let of_modules = format!("{same_modules} of {} modules", self.modules.len());
                (
                    "adapters",
                    format!("{of_modules}, {of_tensors} that were fully trained"),
                )
            }
        };
        lines.extend(only_in(&self.modules_only_in, "adapted in"));
        lines.extend(modules);
        lines.extend(only_in(&self.tensors_only_in, "in"));
        lines.extend(tensors);
        lines.push(format!("the same: {same}"));
        let verdict = if self.same { "are the same" } else { "differ" };
        let [first, second] = &self.paths;
        titled(f, &format!("{what} {first} and {second} {verdict}"), lines)
    }
}

/// Returns two values, if they differ.
fn pair<T: PartialEq + Debug>(what: &str, [x, y]: &[T; 2]) -> Option<String> {
    (x != y).then(|| format!("{what}{x:?} | {y:?}"))
}

fn module(module: &ModuleDifference) -> String {
    let update = module.relative.zip(module.norms).map(|(relative, [x, y])| {
        format!("update differs by {relative:.3e} of its norm ({x:.4} | {y:.4})")
    });
    let vector = |what, value: Option<f64>| {
        let value = value.filter(|value| *value != 0.0)?;
        Some(format!("{what} differs by {value:.3e}"))
    };
    let [x, y] = module.scales;
    let scale = (x != y).then(|| format!("scale {x} | {y}"));
    let facts = [
        pair("shape ", &module.shapes),
        pair("rank ", &module.ranks),
        scale,
        update,
        module.cosine.map(|cosine| format!("cosine {cosine:.4}")),
        module
            .subspace
            .map(|subspace| format!("subspace {subspace:.4}")),
        vector("magnitude", module.magnitude),
        vector("bias", module.bias),
    ];
    let one_sided = module.one_sided.iter();
    let one_sided = one_sided.map(|what| Some(format!("only one has a {what}")));
    format!(
        "{}: {}",
        module.module,
        joined(facts.into_iter().chain(one_sided))
    )
}

fn tensor(tensor: &TensorDifference) -> String {
    let dtypes = tensor.dtypes.as_ref().filter(|[x, y]| x != y);
    let values = tensor
        .largest
        .zip(tensor.relative)
        .map(|(largest, relative)| {
            format!("values differ by {largest:.3e} at most, {relative:.3e} of its norm")
        });
    let facts = [
        pair("shape ", &tensor.shapes),
        dtypes.map(|[x, y]| format!("{x} | {y}")),
        values,
    ];
    format!("{}: {}", tensor.name, joined(facts))
}
