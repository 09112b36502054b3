//! Configurations of adapter, virtual tokens, adapter layers and LoRA+ from the options of a run.

use super::ranges::{at_least_one, within};
use crate::TrainError;
use crate::options::{Method, MethodPart, TargetNames, TrainOptions};
use crate::trainer::LoraPlus;
use lora_core::{BiasTraining, ExcludeModules, LoraConfig, LoraScaling, TargetModules};
use lora_models::activation::Activation;
use lora_models::adapter_layers::AdapterLayersConfig;
use lora_models::prefix::{PrefixConfig, PrefixKind};
use std::ops::Bound;

/// Returns the learning rates of LoRA+, if the options enable it.
pub(crate) fn lora_plus(o: &TrainOptions, method: &Method) -> Result<Option<LoraPlus>, TrainError> {
    let Some(ratio) = o.loraplus_lr_ratio else {
        if o.loraplus_lr_embedding.is_some() {
            let message = "requires --loraplus-lr-ratio";
            return Err(TrainError::config("loraplus_lr_embedding", message));
        }
        return Ok(None);
    };
    if !method.has(MethodPart::Lora) {
        let message =
            format!("applies to the factors of adapters, and the method {method} has none");
        return Err(TrainError::config("loraplus_lr_ratio", message));
    }
    let range = (Bound::Excluded(0.0), Bound::Included(f64::MAX));
    let positive = |name: &str, value| within(name, value, range, "a number above 0");
    let standard = LoraPlus::default();
    let embedding_lr = o.loraplus_lr_embedding.unwrap_or(standard.embedding_lr);
    Ok(Some(LoraPlus {
        ratio: positive("loraplus_lr_ratio", ratio)?,
        embedding_lr: positive("loraplus_lr_embedding", embedding_lr)?,
    }))
}

/// Returns the name of the first given option that applies to factors.
pub(crate) fn factor_option(o: &TrainOptions) -> Option<&'static str> {
    let given = [
        ("rank", o.rank.is_some()),
        ("alpha", o.alpha.is_some()),
        ("dropout", o.dropout.is_some()),
        ("targets", o.targets.is_some()),
        ("exclude", o.exclude.is_some()),
        ("layers", o.layers.is_some()),
        ("rslora", o.rslora),
        ("init", o.init.is_some()),
        ("dora", o.dora),
        ("lora_bias", o.lora_bias),
        ("bias", o.bias.is_some()),
        ("ensure_weight_tying", o.ensure_weight_tying),
        ("rank_pattern", !o.rank_pattern.is_empty()),
        ("alpha_pattern", !o.alpha_pattern.is_empty()),
    ];
    let mut names = given.into_iter().filter(|(_, given)| *given);
    names.next().map(|(name, _)| name)
}

/// Refuses options of low-rank factors for a method without them.
fn no_factors(o: &TrainOptions, method: &Method) -> Result<(), TrainError> {
    let Some(name) = factor_option(o) else {
        return Ok(());
    };
    let message = format!("is an option of low-rank adapters, and the method {method} trains none");
    Err(TrainError::config(name, message))
}

/// Refuses options of a part that the method does not have.
fn without_part(
    options: &[(&'static str, bool)],
    method: &Method,
    needed: &str,
) -> Result<(), TrainError> {
    let mut given = options.iter().filter(|(_, given)| *given);
    let Some((name, _)) = given.next() else {
        return Ok(());
    };
    let message =
        format!("applies to {needed}, and the method is {method}; leave it out, or add one");
    Err(TrainError::config(*name, message))
}

/// Returns the configuration of the virtual tokens, if the method has them. `prompt_text` is added once the tokenizer is known.
pub(crate) fn prefix_config(
    o: &TrainOptions,
    method: &Method,
) -> Result<Option<PrefixConfig>, TrainError> {
    let Some(kind) = method.prefix() else {
        let given = [
            ("virtual_tokens", o.virtual_tokens.is_some()),
            ("prompt_text", o.prompt_text.is_some()),
        ];
        without_part(
            &given,
            method,
            "the methods prompt, prefix and prefix-layer",
        )?;
        return Ok(None);
    };
    if o.prompt_text.is_some() && kind != PrefixKind::Embeddings {
        without_part(&[("prompt_text", true)], method, "the method prompt")?;
    }
    let name = match (o.virtual_tokens, o.prefix) {
        (Some(tokens), Some(other)) if tokens != other => {
            let message = format!("is {tokens}, and `prefix` is {other}; give one");
            return Err(TrainError::config("virtual_tokens", message));
        }
        (Some(_), _) => "virtual_tokens",
        _ => "prefix",
    };
    let Some(tokens) = o.virtual_tokens.or(o.prefix) else {
        if o.adapter.is_some() {
            // Those of the adapter are trained further.
            return Ok(None);
        }
        let (name, flag) = if o.prefix_only {
            ("prefix_only", "--prefix")
        } else {
            ("virtual_tokens", "--virtual-tokens")
        };
        let message = format!(
            "needs a number: give {flag} N, the number of virtual tokens, or --adapter with virtual tokens to train further"
        );
        return Err(TrainError::config(name, message));
    };
    let tokens = at_least_one(name, tokens)?;
    let config = PrefixConfig::new(tokens).with_kind(kind);
    Ok(Some(config.with_seed(o.seed.unwrap_or(42))))
}

/// Returns the configuration of the adapter layers, if the method has them.
pub(crate) fn adapter_layers_config(
    o: &TrainOptions,
    method: &Method,
) -> Result<Option<AdapterLayersConfig>, TrainError> {
    let given = [
        ("adapter_size", o.adapter_size.is_some()),
        ("adapter_activation", o.adapter_activation.is_some()),
        ("adapter_drop", o.adapter_drop.is_some()),
    ];
    let Some(mut config) = method.adapter_layers() else {
        let needed = "the methods adapter-h, adapter-l and adapter-p";
        without_part(&given, method, needed)?;
        return Ok(None);
    };
    if let Some(size) = o.adapter_size {
        config = config.with_size(at_least_one("adapter_size", size)?);
    }
    if let Some(name) = &o.adapter_activation {
        let unknown = || {
            let names = Activation::names().join(", ");
            TrainError::config(
                "adapter_activation",
                format!("is `{name}`, expected {names}"),
            )
        };
        config.activation = Activation::from_name(name).ok_or_else(unknown)?;
    }
    let config = config.without_first(o.adapter_drop.unwrap_or(0));
    Ok(Some(config.with_seed(o.seed.unwrap_or(42))))
}

/// Returns the configuration of what is trained of the model's own parameters: low-rank factors, biases, or the last two layers.
/// `None` if there is nothing but a head.
pub(crate) fn lora_config(
    o: &TrainOptions,
    method: &Method,
) -> Result<Option<LoraConfig>, TrainError> {
    let standard = LoraConfig::default();
    if !method.has(MethodPart::Lora) {
        no_factors(o, method)?;
    }
    if !method.has(MethodPart::Lora) && !method.has(MethodPart::BitFit) {
        let given = [("modules_to_save", o.modules_to_save.is_some())];
        without_part(&given, method, "the methods lora and bitfit")?;
    }
    if method.has(MethodPart::Top2) {
        let given = [("new_tokens", o.new_tokens.is_some())];
        without_part(&given, method, "every method but top2")?;
    }
    if method.has(MethodPart::BitFit) {
        return Ok(Some(LoraConfig {
            bias: BiasTraining::All,
            targets: TargetModules::Names(Vec::new()),
            modules_to_save: o.modules_to_save.clone().unwrap_or_default(),
            ..standard
        }));
    }
    if method.has(MethodPart::Top2) {
        // The layers are added once the model is known.
        return Ok(Some(LoraConfig {
            targets: TargetModules::Names(Vec::new()),
            ..standard
        }));
    }
    if !method.has(MethodPart::Lora) {
        // Rows of new tokens beside virtual tokens or adapter layers; their ids are added once the tokenizer is known.
        let rows = o.new_tokens.as_ref().filter(|_| !method.is_full());
        return Ok(rows.map(|_| LoraConfig {
            targets: TargetModules::Names(Vec::new()),
            ..standard
        }));
    }
    let config = LoraConfig {
        rank: o.rank.unwrap_or(standard.rank),
        alpha: o.alpha.unwrap_or(standard.alpha),
        dropout: o.dropout.unwrap_or(standard.dropout),
        scaling: if o.rslora {
            LoraScaling::RankStabilized
        } else {
            LoraScaling::Standard
        },
        init: o.init.unwrap_or_default(),
        seed: o.seed.unwrap_or(42),
        dora: o.dora,
        lora_bias: o.lora_bias,
        bias: o.bias.unwrap_or_default(),
        targets: targets(o.targets.as_ref()),
        exclude: o.exclude.clone().map(ExcludeModules::Names),
        layers: o.layers.clone(),
        layers_pattern: Vec::new(),
        rank_pattern: o.rank_pattern.clone().into_iter().collect(),
        modules_to_save: o.modules_to_save.clone().unwrap_or_default(),
        ensure_weight_tying: o.ensure_weight_tying,
        token_indices: Vec::new(),
        alpha_pattern: o.alpha_pattern.clone().into_iter().collect(),
    };
    match &o.targets {
        Some(_) => config.validate()?,
        // The model's default targets are names, and replace these once the model is known.
        None => config
            .clone()
            .with_targets(TargetModules::names(["default"]))
            .validate()?,
    }
    Ok(Some(config))
}

/// Parses the target modules. A comma in brackets separates slices: `c_attn[q,v],c_fc` has two entries.
fn targets(names: Option<&TargetNames>) -> TargetModules {
    let text = match names {
        // The model's default targets replace it, once the model is known.
        None => return TargetModules::AllLinear,
        Some(TargetNames::List(names)) => return TargetModules::names(names.clone()),
        Some(TargetNames::Text(text)) => text.as_str(),
    };
    if text == TargetModules::ALL_LINEAR {
        return TargetModules::AllLinear;
    }
    if let Some(pattern) = text.strip_prefix("regex:") {
        return TargetModules::regex(pattern);
    }
    let mut entries = vec![String::new()];
    let mut depth = 0usize;
    for character in text.chars() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                entries.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(entry) = entries.last_mut() {
            entry.push(character);
        }
    }
    TargetModules::names(entries.iter().map(|entry| entry.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(options: &TrainOptions) -> Result<LoraConfig, TrainError> {
        let config = lora_config(options, &options.method()?)?;
        config.ok_or_else(|| TrainError::config("method", "trains no weights of the model"))
    }

    fn prefix(options: &TrainOptions) -> Result<Option<PrefixConfig>, TrainError> {
        prefix_config(options, &options.method()?)
    }

    fn layers(options: &TrainOptions) -> Result<Option<AdapterLayersConfig>, TrainError> {
        adapter_layers_config(options, &options.method()?)
    }

    fn plus(options: &TrainOptions) -> Result<Option<LoraPlus>, TrainError> {
        lora_plus(options, &options.method()?)
    }

    #[test]
    fn a_comma_in_brackets_separates_slices() {
        let parsed = |text: &str| targets(Some(&TargetNames::Text(text.into())));
        assert_eq!(
            parsed("c_attn[q,v], c_fc"),
            TargetModules::names(["c_attn[q,v]", "c_fc"])
        );
        assert_eq!(parsed("all-linear"), TargetModules::AllLinear);
        assert_eq!(parsed("regex:.*c_fc"), TargetModules::regex(".*c_fc"));
    }

    #[test]
    fn bitfit_has_biases_and_no_factors() {
        let bitfit = TrainOptions {
            bitfit: true,
            ..TrainOptions::default()
        };
        let config = lora(&bitfit).unwrap();
        assert_eq!(config.bias, BiasTraining::All);
        assert_eq!(config.targets, TargetModules::Names(Vec::new()));
        let with_rank = TrainOptions {
            rank: Some(4),
            ..bitfit
        };
        let error = lora(&with_rank).unwrap_err().to_string();
        assert!(
            error.contains("rank") && error.contains("bitfit"),
            "{error}"
        );
    }

    #[test]
    fn a_prefix_trains_beside_adapters_or_alone() {
        let options = |prefix| TrainOptions {
            prefix,
            ..TrainOptions::default()
        };
        assert_eq!(prefix(&options(None)).unwrap(), None);
        let seeded = TrainOptions {
            seed: Some(7),
            ..options(Some(5))
        };
        let config = prefix(&seeded).unwrap().unwrap();
        assert_eq!(config, PrefixConfig::new(5).with_seed(7));
        let refused = |options: TrainOptions| prefix(&options).unwrap_err().to_string();
        assert!(refused(options(Some(0))).contains("prefix"));
        let only = |options| TrainOptions {
            prefix_only: true,
            ..options
        };
        assert!(prefix(&only(options(Some(5)))).is_ok());
        assert!(refused(only(options(None))).contains("--prefix"));
        let with_rank = TrainOptions {
            rank: Some(4),
            ..only(options(Some(5)))
        };
        let error = lora(&with_rank).unwrap_err().to_string();
        assert!(
            error.contains("rank") && error.contains("prefix"),
            "{error}"
        );
        let bitfit = TrainOptions {
            bitfit: true,
            ..only(options(Some(5)))
        };
        assert!(refused(bitfit).contains("bitfit"));
        let full = TrainOptions {
            full: true,
            ..options(Some(5))
        };
        assert!(refused(full).contains("--full"));
    }

    #[test]
    fn lora_plus_is_of_factors() {
        let options = |ratio| TrainOptions {
            loraplus_lr_ratio: Some(ratio),
            ..TrainOptions::default()
        };
        let found = plus(&options(16.0)).unwrap();
        assert_eq!(found, Some(LoraPlus::default()));
        assert!(plus(&options(0.0)).is_err());
        let full = TrainOptions {
            full: true,
            ..options(2.0)
        };
        assert!(plus(&full).is_err());
        let alone = TrainOptions {
            loraplus_lr_embedding: Some(1e-5),
            ..TrainOptions::default()
        };
        assert!(plus(&alone).is_err());
    }

    #[test]
    fn each_part_has_its_own_options() {
        let given = |method: &str| TrainOptions {
            method: Some(method.parse().unwrap()),
            ..TrainOptions::default()
        };
        let sized = |method: &str| TrainOptions {
            adapter_size: Some(4),
            adapter_drop: Some(1),
            adapter_activation: Some("gelu".into()),
            ..given(method)
        };
        let config = layers(&sized("lora+adapter-h")).unwrap().unwrap();
        assert_eq!((config.size, config.leave_out.len()), (Some(4), 1));
        assert_eq!(config.activation, Activation::Gelu);
        let error = layers(&sized("lora")).unwrap_err().to_string();
        assert!(
            error.contains("adapter_size") && error.contains("adapter-p"),
            "{error}"
        );
        let unknown = TrainOptions {
            adapter_activation: Some("softmax".into()),
            ..given("adapter-p")
        };
        assert!(layers(&unknown).unwrap_err().to_string().contains("relu"));

        let counted = |method: &str| TrainOptions {
            virtual_tokens: Some(6),
            ..given(method)
        };
        let kind = |method: &str| prefix(&counted(method)).unwrap().unwrap().kind;
        assert_eq!(kind("prompt"), PrefixKind::Embeddings);
        assert_eq!(kind("lora+prefix"), PrefixKind::KeysAndValues);
        assert_eq!(kind("lora+prefix-layer"), PrefixKind::Activations);
        let error = prefix(&given("prompt")).unwrap_err().to_string();
        assert!(error.contains("--virtual-tokens"), "{error}");
        assert!(prefix(&counted("lora")).is_err());
        let text = TrainOptions {
            prompt_text: Some("classify".into()),
            ..counted("prefix")
        };
        assert!(
            prefix(&text)
                .unwrap_err()
                .to_string()
                .contains("prompt_text")
        );

        // The last two layers and a head alone have no factors.
        assert!(
            lora_config(&given("prompt"), &given("prompt").method().unwrap())
                .unwrap()
                .is_none()
        );
        let top = lora(&given("top2")).unwrap();
        assert!(!top.has_targets());
        let with_rank = TrainOptions {
            rank: Some(4),
            ..given("top2")
        };
        assert!(lora(&with_rank).unwrap_err().to_string().contains("rank"));
    }
}
