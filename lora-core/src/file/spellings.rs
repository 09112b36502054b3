//! Names of an adapter's tensors as other programs, and PEFT in other ways of saving, spell them.
//!
//! | in the file | read as |
//! | --- | --- |
//! | `module.…`, `model.…`, `state_dict.…` before PEFT's prefix; `_orig_mod.` anywhere | without it |
//! | the prefix `base_model.model.` several times, or missing from all names | once |
//! | `….lora_A.default.weight`, the name of an adapter | `….lora_A.weight` |
//! | `….lora_magnitude_vector.weight` | `….lora_magnitude_vector` |
//! | `….modules_to_save.default.weight`, with `….original_module.weight` | `….weight`, without the base's own |
//! | `….lora_velora_embed`, `….lora_monteclora_sampler.…`: state of the training | left out |

use super::names::{PREFIX, split_name};
use std::collections::{BTreeMap, BTreeSet};

/// Components that wrappers put into the path of a module: `torch.compile`, FSDP, checkpointed activations, Lightning.
const WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// Components before a model's own names: data parallel training, and dictionaries around a state dict.
const CONTAINERS: [&str; 5] = ["module", "model", "state_dict", "model_state_dict", "net"];

/// Tensors that a method keeps beside the factors while it trains.
const TRAINING_STATE: [&str; 2] = [".lora_velora_embed", ".lora_monteclora_sampler."];

/// Parts of the names of factors that the name of an adapter follows.
const FACTORS: [&str; 5] = [
    ".lora_A.",
    ".lora_B.",
    ".lora_embedding_A.",
    ".lora_embedding_B.",
    ".lora_magnitude_vector.",
];

/// Returns a name without the components of wrappers that do not belong to the model's path.
///
/// ```
/// use lora_core::file::without_wrappers;
///
/// assert_eq!(without_wrappers("_orig_mod.h.0._orig_mod.ln_1.weight"), "h.0.ln_1.weight");
/// ```
pub fn without_wrappers(name: &str) -> String {
    let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
    parts.collect::<Vec<_>>().join(".")
}

/// Returns the rest of a name behind its first component, if that stands before a model's own names: `module.` or
/// `state_dict.`.
pub fn without_container(name: &str) -> Option<&str> {
    let (first, rest) = name.split_once('.')?;
    CONTAINERS.contains(&first).then_some(rest)
}

/// Names of an adapter's tensors, each with its name in the file.
#[derive(Debug, Default)]
pub struct PeftNames {
    /// Names as PEFT writes them, with those in the file.
    pub names: BTreeMap<String, String>,
    /// Differences that were found, as noun phrases.
    pub remarks: Vec<String>,
}

/// Finds PEFT's names of the tensors of a file. A file whose names are PEFT's already keeps them.
///
/// # Errors
/// A message for a file that holds several adapters, or a tensor twice.
pub fn peft_names<'a>(in_file: impl Iterator<Item = &'a str>) -> Result<PeftNames, String> {
    let mut remarks = BTreeSet::new();
    let mut adapters = BTreeSet::new();
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for raw in in_file {
        let mut name = unwrapped(raw, &mut remarks);
        if TRAINING_STATE.iter().any(|state| name.contains(state)) {
            remarks.insert("tensors of the training alone, which are left out".to_string());
            continue;
        }
        if let Some((plain, adapter)) = without_adapter(&name) {
            adapters.extend(adapter);
            name = plain;
        }
        put(&mut names, name, raw)?;
    }
    let mut names = saved_modules(names, &mut adapters)?;
    if adapters.len() > 1 {
        let list = Vec::from_iter(adapters).join("`, `");
        return Err(format!(
            "holds several adapters, `{list}`; save each by itself with `save_pretrained`"
        ));
    }
    if let Some(adapter) = adapters.first() {
        remarks.insert(format!("the adapter's name `{adapter}` in names"));
    }
    let is_bare = !names.keys().any(|name| name.starts_with(PREFIX));
    if is_bare && names.keys().any(|name| split_name(name).is_some()) {
        remarks.insert(format!("names without PEFT's prefix `{PREFIX}`"));
        let with_prefix = |(name, raw)| (format!("{PREFIX}{name}"), raw);
        names = names.into_iter().map(with_prefix).collect();
    }
    let names = names.into_iter();
    Ok(PeftNames {
        names: names.map(|(name, raw)| (name, raw.to_string())).collect(),
        remarks: remarks.into_iter().collect(),
    })
}

/// Returns a name without wrappers, without what stands before PEFT's prefix, and with that prefix once.
fn unwrapped(raw: &str, remarks: &mut BTreeSet<String>) -> String {
    let name = without_wrappers(raw);
    let mut rest = name.as_str();
    while let Some(inner) = without_container(rest).filter(|inner| inner.contains(PREFIX)) {
        rest = inner;
    }
    if rest != raw {
        remarks.insert("names with the prefixes of wrappers or dictionaries".to_string());
    }
    while let Some(inner) = rest
        .strip_prefix(PREFIX)
        .filter(|inner| inner.starts_with(PREFIX))
    {
        rest = inner;
        remarks.insert(format!("PEFT's prefix `{PREFIX}` twice"));
    }
    rest.to_string()
}

/// Returns the name of a factor without the name of an adapter in it, and that name; `None` for any other tensor.
fn without_adapter(name: &str) -> Option<(String, Option<String>)> {
    let found = FACTORS.iter().find_map(|factor| {
        let at = name.rfind(factor)?;
        Some((factor, at, &name[at + factor.len()..]))
    });
    let (factor, at, rest) = found?;
    let is_leaf = matches!(*factor, ".lora_A." | ".lora_B.");
    let (adapter, leaf) = match rest.split_once('.') {
        Some((adapter, leaf)) => (Some(adapter), leaf),
        None if is_leaf || rest == "weight" => (None, rest),
        None => (Some(rest), ""),
    };
    let end = match (is_leaf, leaf) {
        (true, "weight" | "bias") => format!(".{leaf}"),
        (false, "" | "weight") => String::new(),
        _ => return None,
    };
    let stem = &name[..at + factor.len() - 1];
    Some((format!("{stem}{end}"), adapter.map(str::to_string)))
}

/// Gives the fully trained modules of a whole state dict the names of PEFT's files, where these are not there too, and leaves
/// out the base's own.
fn saved_modules<'a>(
    names: BTreeMap<String, &'a str>,
    adapters: &mut BTreeSet<String>,
) -> Result<BTreeMap<String, &'a str>, String> {
    let plain = |name: &str| {
        let (module, rest) = name.split_once(".modules_to_save.")?;
        let (adapter, parameter) = rest.split_once('.')?;
        Some((format!("{module}.{parameter}"), adapter.to_string()))
    };
    let renamed: BTreeMap<&str, (String, String)> = names
        .keys()
        .filter_map(|name| Some((name.as_str(), plain(name)?)))
        .filter(|(_, (plain, _))| !names.contains_key(plain))
        .collect();
    let is_original = |name: &str| {
        let base = name.split_once(".original_module.");
        let base = base.map(|(module, rest)| format!("{module}.{rest}"));
        base.is_some_and(|base| renamed.values().any(|(plain, _)| *plain == base))
    };
    let mut found = BTreeMap::new();
    for (name, raw) in &names {
        match renamed.get(name.as_str()) {
            Some((plain, adapter)) => {
                adapters.insert(adapter.clone());
                put(&mut found, plain.clone(), raw)?;
            }
            None if is_original(name) => {}
            None => put(&mut found, name.clone(), raw)?,
        }
    }
    Ok(found)
}

fn put<'a>(
    names: &mut BTreeMap<String, &'a str>,
    name: String,
    raw: &'a str,
) -> Result<(), String> {
    match names.insert(name, raw) {
        None => Ok(()),
        Some(other) => Err(format!("holds one tensor twice, as `{other}` and `{raw}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let spelled = peft_names(names.iter().copied()).unwrap();
        (spelled.names.into_keys().collect(), spelled.remarks)
    }

    #[test]
    fn names_of_peft_stay_as_they_are() {
        let names = [
            "base_model.model.h.0.c_attn.base_layer.bias",
            "base_model.model.h.0.c_attn.lora_A.weight",
            "base_model.model.h.0.c_attn.lora_B.bias",
            "base_model.model.h.0.c_attn.lora_B.weight",
            "base_model.model.h.0.c_attn.lora_magnitude_vector",
            "base_model.model.score.weight",
            "base_model.model.wte.lora_embedding_A",
        ];
        assert_eq!(found(&names), (names.map(String::from).to_vec(), vec![]));
        let prefix = ["prompt_embeddings"];
        assert_eq!(found(&prefix), (prefix.map(String::from).to_vec(), vec![]));
    }

    #[test]
    fn every_spelling_of_a_factor_is_read() {
        let expected = [
            "base_model.model.h.q.lora_A.weight",
            "base_model.model.h.q.lora_magnitude_vector",
            "base_model.model.wte.lora_embedding_B",
        ];
        for (before, adapter) in [
            ("base_model.model.", ".default"),
            ("base_model.model.base_model.model.", ""),
            ("", ""),
            ("", ".default"),
            ("module.base_model.model.", ""),
            ("state_dict.model.base_model.model.", ".my-adapter"),
            ("_orig_mod.base_model.model.", ".default"),
            ("_orig_mod.module.base_model.model._orig_mod.", ""),
            ("module._fsdp_wrapped_module.base_model.model.", ".weight-1"),
        ] {
            let names = [
                format!("{before}h.q.lora_A{adapter}.weight"),
                format!("{before}h.q.lora_magnitude_vector{adapter}.weight"),
                format!("{before}wte.lora_embedding_B{adapter}"),
            ];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (names, remarks) = found(&names);
            assert_eq!(names, expected, "{before} {adapter}");
            assert_eq!(remarks.is_empty(), before == PREFIX && adapter.is_empty());
        }
    }

    #[test]
    fn saved_modules_of_a_whole_state_dict_are_the_trained_ones() {
        let names = [
            "base_model.model.classifier.modules_to_save.default.bias",
            "base_model.model.classifier.original_module.bias",
            "base_model.model.h.q.lora_A.default.weight",
        ];
        let (names, _) = found(&names);
        assert_eq!(
            names,
            [
                "base_model.model.classifier.bias",
                "base_model.model.h.q.lora_A.weight"
            ]
        );
        // Beside the plain name they are the copies of `bias="all"`.
        let copies = [
            "base_model.model.classifier.bias",
            "base_model.model.classifier.modules_to_save.default.bias",
            "base_model.model.classifier.original_module.bias",
        ];
        assert_eq!(found(&copies).0, copies);
    }

    #[test]
    fn several_adapters_and_a_tensor_twice_are_refused() {
        let refused = |names: &[&str]| peft_names(names.iter().copied()).unwrap_err();
        let message = refused(&["h.q.lora_A.de.weight", "h.q.lora_B.fr.weight"]);
        assert!(
            message.contains("several adapters, `de`, `fr`"),
            "{message}"
        );
        let message = refused(&["h.q.lora_A.weight", "h.q.lora_A.default.weight"]);
        assert!(message.contains("one tensor twice"), "{message}");
    }

    #[test]
    fn state_of_the_training_is_left_out() {
        let (names, remarks) = found(&[
            "base_model.model.h.q.lora_A.weight",
            "base_model.model.h.q.lora_velora_embed",
            "base_model.model.h.q.lora_monteclora_sampler.std_prior",
        ]);
        assert_eq!(names, ["base_model.model.h.q.lora_A.weight"]);
        assert_eq!(remarks.len(), 1);
    }
}
