//! Matrices with an update: parts of fused projections by themselves, selected by name and layer.

use crate::TrainError;
use lora_core::Architecture;
use lora_core::Slices;
use lora_core::file::{StoredAdapter, StoredFactors};
use std::collections::BTreeSet;

/// Adapters, and the matrices to analyze of them.
pub(super) struct Updates<'a> {
    pub adapters: &'a [StoredAdapter],
    pub filter: &'a Filter,
}

/// Selection of matrices.
#[derive(Debug, Default)]
pub(super) struct Filter {
    targets: Option<Vec<String>>,
    layers: Option<Vec<usize>>,
}

/// Matrix with the update of each adapter.
pub(super) struct Matrix {
    /// Name of the module.
    pub module: String,
    /// Part of a fused projection: its name, and its rows of the whole.
    pub part: Option<(String, Vec<usize>)>,
    /// Factors of its update in each adapter.
    pub factors: Vec<StoredFactors>,
    /// True for each adapter that has a magnitude there.
    pub dora: Vec<bool>,
}

impl Matrix {
    /// Returns the name of the module, with the part in brackets.
    pub fn name(&self) -> String {
        named(
            &self.module,
            self.part.as_ref().map(|(part, _)| part.as_str()),
        )
    }
}

fn named(module: &str, part: Option<&str>) -> String {
    match part {
        Some(part) => format!("{module}[{part}]"),
        None => module.into(),
    }
}

impl Filter {
    /// Creates the selection of names and layers. Names may have parts in brackets: `c_attn[q,v]`.
    pub fn new(targets: Option<&str>, layers: Option<&[usize]>) -> Self {
        Self {
            targets: targets.map(split),
            layers: layers.map(<[usize]>::to_vec),
        }
    }

    fn selects(&self, module: &str, part: Option<&str>) -> bool {
        let by_name = self.targets.as_ref().is_none_or(|targets| {
            let mut targets = targets.iter();
            targets.any(|target| fits(target, module, part))
        });
        let by_layer = self
            .layers
            .as_ref()
            .is_none_or(|layers| layer(module).is_some_and(|layer| layers.contains(&layer)));
        by_name && by_layer
    }

    /// Refuses a name or a layer that selects none of these.
    fn check(&self, all: &[(String, Option<String>)]) -> Result<(), TrainError> {
        for target in self.targets.iter().flatten() {
            let mut all_matrices = all.iter();
            if !all_matrices.any(|(module, part)| fits(target, module, part.as_deref())) {
                let names: BTreeSet<String> = all
                    .iter()
                    .map(|(module, part)| {
                        let end = module.rsplit('.').next().unwrap_or(module);
                        named(end, part.as_deref())
                    })
                    .collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                let message =
                    format!("`{target}` matches no matrix with an adapter; there are {names}");
                return Err(TrainError::config("targets", message));
            }
        }
        let there: BTreeSet<usize> = all.iter().filter_map(|(module, _)| layer(module)).collect();
        let mut layers = self.layers.iter().flatten();
        match layers.find(|layer| !there.contains(layer)) {
            None => Ok(()),
            Some(layer) => {
                let there: Vec<String> = there.iter().map(usize::to_string).collect();
                let there = there.join(", ");
                let message = format!("has {layer}, but the layers with an adapter are {there}");
                Err(TrainError::config("layers", message))
            }
        }
    }
}

/// Splits a list at the commas outside brackets.
fn split(targets: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut inside = false;
    for character in targets.chars() {
        match character {
            ',' if !inside => names.push(String::new()),
            _ => {
                inside = (inside || character == '[') && character != ']';
                if let Some(name) = names.last_mut() {
                    name.push(character);
                }
            }
        }
    }
    names.iter_mut().for_each(|name| *name = name.trim().into());
    names.retain(|name| !name.is_empty());
    names
}

/// Returns true if a target is the end of a module's name, and lists the part if it lists any.
fn fits(target: &str, module: &str, part: Option<&str>) -> bool {
    let (name, parts) = match target.split_once('[') {
        Some((name, parts)) => (name, Some(parts.trim_end_matches(']'))),
        None => (target, None),
    };
    let before = module.strip_suffix(name);
    let at_end = before.is_some_and(|before| before.is_empty() || before.ends_with('.'));
    at_end
        && parts.is_none_or(|parts| {
            let mut parts = parts.split(',').map(str::trim);
            part.is_some_and(|part| parts.any(|listed| listed == part))
        })
}

/// Returns the index of the layer in a module's name: its last component that is a number.
pub(super) fn layer(module: &str) -> Option<usize> {
    let mut components = module.rsplit('.');
    components.find_map(|component| component.parse().ok())
}

impl Updates<'_> {
    /// Returns the names of all modules with an adapter, sorted.
    pub fn modules(&self) -> Vec<String> {
        let adapters = self.adapters.iter();
        let names: BTreeSet<&String> = adapters.flat_map(|a| a.modules.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// Returns the selected matrices that each adapter has an update for, and the names of those that only some have.
    ///
    /// # Errors
    /// [`TrainError::Config`] if a filter selects nothing, or the adapters have no matrix in common.
    pub fn matrices(
        &self,
        architecture: &Architecture,
    ) -> Result<(Vec<Matrix>, Vec<String>), TrainError> {
        let (mut found, mut skipped, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut modules = self.modules();
        // The order of the model's layers: that of the names, with numbers as such.
        modules.sort_by_key(|name| by_numbers(name));
        for module in modules {
            for part in parts(&module, self.adapters, architecture) {
                let factors = self.adapters.iter().map(|adapter| {
                    let factors = adapter.modules.get(&module)?;
                    match &part {
                        Some((_, rows)) => factors.part(rows),
                        None => Some(factors.clone()),
                    }
                });
                let factors: Vec<Option<StoredFactors>> = factors.collect();
                let name = part.as_ref().map(|(name, _)| name.clone());
                if factors.iter().all(Option::is_none) {
                    continue;
                }
                let selected = self.filter.selects(&module, name.as_deref());
                all.push((module.clone(), name.clone()));
                if !selected {
                    continue;
                }
                match factors.into_iter().collect::<Option<Vec<_>>>() {
                    None => skipped.push(named(&module, name.as_deref())),
                    Some(factors) => found.push(Matrix {
                        dora: self.dora(&module),
                        module: module.clone(),
                        part,
                        factors,
                    }),
                }
            }
        }
        self.filter.check(&all)?;
        if found.is_empty() {
            let message = match (all.is_empty(), skipped.is_empty()) {
                (true, _) => "has no low-rank update of any matrix",
                (_, true) => "has no matrix that both --targets and --layers select",
                _ => "and the adapter that it is compared with have no selected matrix in common",
            };
            return Err(TrainError::config("adapter", message));
        }
        Ok((found, skipped))
    }

    fn dora(&self, module: &str) -> Vec<bool> {
        let factors = self
            .adapters
            .iter()
            .map(|adapter| adapter.modules.get(module));
        let has = |factors: Option<&StoredFactors>| factors.is_some_and(|f| f.magnitude.is_some());
        factors.map(has).collect()
    }
}

/// Returns the components of a name, with numbers in their order.
fn by_numbers(name: &str) -> Vec<(usize, String)> {
    let components = name.split('.');
    let number = |component: &str| component.parse().unwrap_or(usize::MAX);
    components.map(|c| (number(c), c.to_string())).collect()
}

/// Returns the parts of a fused projection, with their rows; one `None` for any other module.
fn parts(
    module: &str,
    adapters: &[StoredAdapter],
    architecture: &Architecture,
) -> Vec<Option<(String, Vec<usize>)>> {
    let mut factors = adapters
        .iter()
        .filter_map(|adapter| adapter.modules.get(module));
    let (Some(fused), Some(factors)) = (architecture.fused_projection(module), factors.next())
    else {
        return vec![None];
    };
    let d_out = factors.shape()[0];
    let slices = Slices {
        parts: fused.parts.len(),
        adapted: (0..fused.parts.len()).collect(),
        layout: fused.layout,
    };
    if !d_out.is_multiple_of(slices.least_columns()) {
        return vec![None];
    }
    let parts = fused.parts.iter().enumerate();
    parts
        .map(|(part, name)| Some((name.clone(), slices.columns(part, d_out))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select_by_their_ends_and_parts() {
        assert_eq!(split("query, c_attn[q,v],"), ["query", "c_attn[q,v]"]);
        let module = "transformer.h.11.attn.c_attn";
        assert!(fits("c_attn", module, Some("k")) && fits("attn.c_attn", module, None));
        assert!(fits("c_attn[q, v]", module, Some("v")));
        assert!(!fits("c_attn[q,v]", module, Some("k")) && !fits("c_attn[q]", module, None));
        assert!(!fits("attn", module, None) && !fits("n", module, None));
        assert_eq!((layer(module), layer("lm_head")), (Some(11), None));
    }

    #[test]
    fn layers_are_in_the_order_of_their_numbers() {
        let mut names = ["h.10.a", "h.2.a", "h.2.b", "lm_head"].map(String::from);
        names.reverse();
        names.sort_by_key(|name| by_numbers(name));
        assert_eq!(names, ["h.2.a", "h.2.b", "h.10.a", "lm_head"]);
    }
}
