//! Names that lie deeper in a file than in the model: below wrappers, and in dictionaries around a state dict.
//!
//! | in the file | name |
//! | --- | --- |
//! | `_orig_mod.bert.…`, `h.0._fsdp_wrapped_module.…` | without the wrapper, wherever it is |
//! | all names `module.…` (data parallel training) or `state_dict.…` | without it |
//! | `model_state_dict.…` beside `optimizer.…` and the like | without it; the state of the training is left out |
//! | `model.bert.…` for a BERT | without `model.`, found by a tensor that every BERT has |

use lora_core::file::{without_container, without_wrappers};
use std::collections::{BTreeMap, BTreeSet};

/// Components that are no part of any model: all names may begin with them.
const ALWAYS_AROUND: [&str; 3] = ["module", "state_dict", "model_state_dict"];

/// First components of tensors that belong to the training and not to the model.
const TRAINING: [&str; 16] = [
    "optimizer",
    "optimizer_state",
    "optimizer_states",
    "optimizer_state_dict",
    "optim",
    "optim_state",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scheduler_state_dict",
    "scaler",
    "amp",
    "callbacks",
    "loops",
    "rng_state",
    "rng_states",
];

/// Names of the tensors of a model, and those of the others in its files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Names {
    /// Names in the files, by the names of the model.
    pub model: BTreeMap<String, String>,
    /// Names in the files of tensors of the training.
    pub training: Vec<String>,
    /// Beginning of the names in the files that the model's names lack.
    pub root: String,
}

impl Names {
    /// Takes the names of files. Wrappers and dictionaries that cannot be a part of a model are left out.
    ///
    /// # Errors
    /// A message for two tensors that become one.
    pub fn new<'a>(in_files: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut names = Self::default();
        for raw in in_files {
            let name = without_wrappers(raw);
            if let Some(other) = names.model.insert(name, raw.to_string()) {
                return Err(format!(
                    "tensors `{other}` and `{raw}` are one in the model"
                ));
            }
        }
        while let Some(root) = names.common_root() {
            names.strip(&root);
        }
        Ok(names)
    }

    /// Leaves out what stands before the names of a model that has a tensor of one of the names `anchors`, the first that is
    /// there.
    pub fn find_root(&mut self, anchors: &[String]) {
        for anchor in anchors {
            if self.model.contains_key(anchor) {
                return;
            }
            let roots = self.model.keys().filter_map(|name| {
                let root = name.strip_suffix(anchor.as_str())?;
                is_around(root).then(|| root.to_string())
            });
            let roots: Vec<String> = roots.collect();
            if let [root] = roots.as_slice() {
                let root = root.clone();
                return self.strip(&root);
            }
        }
    }

    /// Leaves out what stands before one of these beginnings, if it stands before all names.
    pub fn find_root_before(&mut self, beginnings: &[&str]) {
        let root = self.model.keys().find_map(|name| {
            let at = beginnings
                .iter()
                .filter_map(|first| name.find(first))
                .min()?;
            Some(name[..at].to_string())
        });
        let root = root.filter(|root| {
            is_around(root)
                && self
                    .model
                    .keys()
                    .all(|name| name.starts_with(root.as_str()))
        });
        if let Some(root) = root {
            self.strip(&root);
        }
    }

    /// Returns a first component that belongs to no model, with its dot.
    fn common_root(&self) -> Option<String> {
        let firsts = self.model.keys().map(|name| match name.split_once('.') {
            Some((first, _)) => first,
            None => name,
        });
        let firsts: BTreeSet<&str> = firsts.collect();
        let is_training = |first: &str| TRAINING.contains(&first);
        let mut others = firsts.iter().filter(|first| !is_training(first));
        let (Some(&first), None) = (others.next(), others.next()) else {
            return None;
        };
        // `model.` alone may be a part of a model; beside the state of an optimizer it is a dictionary.
        let root = format!("{first}.");
        let is_root = ALWAYS_AROUND.contains(&first) || (firsts.len() > 1 && is_around(&root));
        is_root.then_some(root)
    }

    fn strip(&mut self, root: &str) {
        for (name, raw) in std::mem::take(&mut self.model) {
            match name.strip_prefix(root) {
                Some(rest) => {
                    self.model.insert(rest.to_string(), raw);
                }
                None if TRAINING.iter().any(|first| is_below(&name, first)) => {
                    self.training.push(raw);
                }
                None => {
                    self.model.insert(name, raw);
                }
            }
        }
        self.root.push_str(root);
    }
}

fn is_below(name: &str, first: &str) -> bool {
    let rest = name.strip_prefix(first);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// True if all components of a beginning may stand before a model's own names.
fn is_around(mut root: &str) -> bool {
    while let Some(rest) = without_container(root) {
        root = rest;
    }
    root.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(in_files: &[&str], anchors: &[&str]) -> Names {
        let mut names = Names::new(in_files.iter().copied()).unwrap();
        names.find_root(&anchors.iter().map(ToString::to_string).collect::<Vec<_>>());
        names
    }

    fn found(in_files: &[&str]) -> (Vec<String>, Vec<String>, String) {
        let names = names(in_files, &["bert.norm", "norm"]);
        (
            names.model.into_keys().collect(),
            names.training,
            names.root,
        )
    }

    #[test]
    fn what_stands_around_a_model_is_left_out() {
        let own = vec!["bert.norm".to_string(), "classifier.bias".to_string()];
        for root in [
            "",
            "module.",
            "state_dict.model.",
            "model.",
            "model.module.",
            "model_state_dict.",
            "net.",
        ] {
            let in_files = own.iter().map(|name| format!("{root}{name}"));
            let in_files: Vec<String> = in_files.collect();
            let in_files: Vec<&str> = in_files.iter().map(String::as_str).collect();
            assert_eq!(found(&in_files), (own.clone(), vec![], root.to_string()));
        }
        let wrapped = ["_orig_mod.module.bert._fsdp_wrapped_module.norm"];
        assert_eq!(found(&wrapped).0, ["bert.norm"]);
    }

    #[test]
    fn the_state_of_a_training_is_told_from_the_model() {
        let state = [
            "model.norm",
            "model.w",
            "optimizer.state.0.exp_avg",
            "rng_state",
        ];
        let (own, training, root) = found(&state);
        assert_eq!(own, ["norm", "rng_state", "w"]);
        assert_eq!((training.len(), root.as_str()), (1, "model."));
    }

    #[test]
    fn what_stands_before_a_family_is_left_out_if_it_stands_before_all() {
        let found = |in_files: &[&str]| {
            let mut names = Names::new(in_files.iter().copied()).unwrap();
            names.find_root_before(&["transformer.", "roberta."]);
            names.model.into_keys().collect::<Vec<_>>()
        };
        let nested = ["model.classifier.bias", "model.roberta.q.lora_A"];
        assert_eq!(found(&nested), ["classifier.bias", "roberta.q.lora_A"]);
        for names in [
            &["classifier.bias", "model.roberta.q.lora_A"][..],
            &["my.roberta.q.lora_A"],
            &["model.h.0.q.lora_A"],
        ] {
            assert_eq!(found(names), names);
        }
    }

    #[test]
    fn what_may_belong_to_a_model_stays() {
        // No tensor says that `model` is no part of it; another family; two models.
        for in_files in [
            &["model.layers.0.w", "model.norm.weight"][..],
            &["roberta.norm"],
            &["a.bert.norm", "b.bert.norm"],
            &["encoder.norm", "lm_head.weight"],
            &["optimizer.state.0.exp_avg"],
        ] {
            assert_eq!(found(in_files).0, in_files, "{in_files:?}");
        }
    }

    #[test]
    fn two_names_of_one_tensor_are_refused() {
        let both = ["_orig_mod.w", "w"];
        assert!(Names::new(both.iter().copied()).is_err());
    }
}
