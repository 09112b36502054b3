//! The report for people: the differences, and the number of what is the same.

use super::report::{DiffKind, DiffReport, ModuleDifference, TensorDifference};
use std::fmt;

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DiffKind::Adapters => "adapters",
            DiffKind::Weights => "weights",
        };
        let verdict = if self.same { "are the same" } else { "differ" };
        let [first, second] = &self.paths;
        writeln!(f, "{what} {first} and {second} {verdict}")?;
        for field in &self.config {
            let [x, y] = &field.values;
            writeln!(f, "  {}: {x} | {y}", field.field)?;
        }
        for (path, names) in self.paths.iter().zip(&self.modules_only_in) {
            for name in names {
                writeln!(f, "  {name}: adapted in {path} only")?;
            }
        }
        for module in self.modules.iter().filter(|module| !module.same) {
            writeln!(f, "  {module}")?;
        }
        for (path, names) in self.paths.iter().zip(&self.tensors_only_in) {
            for name in names {
                writeln!(f, "  {name}: in {path} only")?;
            }
        }
        for tensor in self.tensors.iter().filter(|tensor| !tensor.same) {
            writeln!(f, "  {tensor}")?;
        }
        let modules = self.modules.iter().filter(|module| module.same).count();
        let tensors = self.tensors.iter().filter(|tensor| tensor.same).count();
        match self.kind {
            DiffKind::Adapters => writeln!(
                f,
                "  the same: {modules} of {} modules, {tensors} of {} tensors that trained whole",
                self.modules.len(),
                self.tensors.len()
            ),
            DiffKind::Weights => {
                writeln!(f, "  the same: {tensors} of {} tensors", self.tensors.len())
            }
        }
    }
}

impl fmt::Display for ModuleDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Vec::new();
        if self.shapes[0] != self.shapes[1] {
            facts.push(format!("shape {:?} | {:?}", self.shapes[0], self.shapes[1]));
        }
        if self.ranks[0] != self.ranks[1] {
            facts.push(format!("rank {} | {}", self.ranks[0], self.ranks[1]));
        }
        if self.scales[0] != self.scales[1] {
            facts.push(format!("scale {} | {}", self.scales[0], self.scales[1]));
        }
        if let (Some(relative), Some([x, y])) = (self.relative, self.norms) {
            facts.push(format!(
                "update differs by {relative:.3e} of its norm ({x:.4} | {y:.4})"
            ));
        }
        for (what, value) in [("cosine", self.cosine), ("subspace", self.subspace)] {
            if let Some(value) = value {
                facts.push(format!("{what} {value:.4}"));
            }
        }
        for (what, value) in [("magnitude", self.magnitude), ("bias", self.bias)] {
            if let Some(value) = value.filter(|value| *value != 0.0) {
                facts.push(format!("{what} differs by {value:.3e}"));
            }
        }
        for what in &self.one_sided {
            facts.push(format!("only one has a {what}"));
        }
        write!(f, "{}: {}", self.module, facts.join(", "))
    }
}

impl fmt::Display for TensorDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Vec::new();
        let [x, y] = &self.shapes;
        if x != y {
            facts.push(format!("shape {x:?} | {y:?}"));
        }
        if let Some([x, y]) = self.dtypes.as_ref().filter(|[x, y]| x != y) {
            facts.push(format!("{x} | {y}"));
        }
        if let (Some(largest), Some(relative)) = (self.largest, self.relative) {
            facts.push(format!(
                "values differ by {largest:.3e} at most, {relative:.3e} of its norm"
            ));
        }
        write!(f, "{}: {}", self.name, facts.join(", "))
    }
}
