//! Configurations of adapter, prefix and LoRA+ from the options of a run.

use super::ranges::{at_least_one, within};
use crate::TrainError;
use crate::options::{TargetNames, TrainOptions};
use crate::trainer::LoraPlus;
use lora_core::{BiasTraining, ExcludeModules, LoraConfig, LoraScaling, TargetModules};
use lora_models::prefix::PrefixConfig;
use std::ops::Bound;

/// Returns the learning rates of LoRA+, if the options enable it.
pub(crate) fn lora_plus(o: &TrainOptions) -> Result<Option<LoraPlus>, TrainError> {
    let Some(ratio) = o.loraplus_lr_ratio else {
        if o.loraplus_lr_embedding.is_some() {
            let message = "requires --loraplus-lr-ratio";
            return Err(TrainError::config("loraplus_lr_embedding", message));
        }
        return Ok(None);
    };
    if o.full || o.bitfit || o.prefix_only {
        return Err(TrainError::config(
            "loraplus_lr_ratio",
            "applies to the factors of adapters, and there are none with --full, --bitfit or --prefix-only",
        ));
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

/// Refuses options of adapters beside an option that excludes adapters.
fn no_factors(o: &TrainOptions, without: &str) -> Result<(), TrainError> {
    let Some(name) = factor_option(o) else {
        return Ok(());
    };
    let message = format!("is an option of low-rank adapters, and {without} trains none");
    Err(TrainError::config(name, message))
}

/// Returns the configuration of the prefix, if the options have one.
pub(crate) fn prefix_config(o: &TrainOptions) -> Result<Option<PrefixConfig>, TrainError> {
    if o.prefix_only {
        no_factors(o, "--prefix-only")?;
        let excluded = [
            ("bitfit", o.bitfit),
            ("full", o.full),
            ("modules_to_save", o.modules_to_save.is_some()),
            ("new_tokens", o.new_tokens.is_some()),
        ];
        if let Some((name, _)) = excluded.iter().find(|(_, given)| *given) {
            let message =
                "cannot be used with --prefix-only, which trains only the prefix; give one";
            return Err(TrainError::config(*name, message));
        }
        if o.prefix.is_none() && o.adapter.is_none() {
            return Err(TrainError::config(
                "prefix_only",
                "requires --prefix (the number of virtual tokens), or --adapter with a prefix to train further",
            ));
        }
    }
    let Some(tokens) = o.prefix else {
        return Ok(None);
    };
    if o.full {
        return Err(TrainError::config(
            "prefix",
            "needs a frozen model, but --full trains all weights; give one",
        ));
    }
    let tokens = at_least_one("prefix", tokens)?;
    let seed = o.seed.unwrap_or(42);
    Ok(Some(PrefixConfig::new(tokens).with_seed(seed)))
}

/// Returns the configuration of the adapter; `--bitfit` is an adapter without factors.
pub(crate) fn lora_config(o: &TrainOptions) -> Result<LoraConfig, TrainError> {
    let standard = LoraConfig::default();
    if o.bitfit {
        no_factors(o, "--bitfit")?;
        return Ok(LoraConfig {
            bias: BiasTraining::All,
            targets: TargetModules::Names(Vec::new()),
            modules_to_save: o.modules_to_save.clone().unwrap_or_default(),
            ..standard
        });
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
    Ok(config)
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
        let config = lora_config(&bitfit).unwrap();
        assert_eq!(config.bias, BiasTraining::All);
        assert_eq!(config.targets, TargetModules::Names(Vec::new()));
        let with_rank = TrainOptions {
            rank: Some(4),
            ..bitfit
        };
        let error = lora_config(&with_rank).unwrap_err().to_string();
        assert!(
            error.contains("rank") && error.contains("--bitfit"),
            "{error}"
        );
    }

    #[test]
    fn a_prefix_trains_beside_adapters_or_alone() {
        let options = |prefix| TrainOptions {
            prefix,
            ..TrainOptions::default()
        };
        assert_eq!(prefix_config(&options(None)).unwrap(), None);
        let seeded = TrainOptions {
            seed: Some(7),
            ..options(Some(5))
        };
        let config = prefix_config(&seeded).unwrap().unwrap();
        assert_eq!(config, PrefixConfig::new(5).with_seed(7));
        let refused = |options: TrainOptions| prefix_config(&options).unwrap_err().to_string();
        assert!(refused(options(Some(0))).contains("prefix"));
        let only = |options| TrainOptions {
            prefix_only: true,
            ..options
        };
        assert!(prefix_config(&only(options(Some(5)))).is_ok());
        assert!(refused(only(options(None))).contains("--prefix"));
        let with_rank = TrainOptions {
            rank: Some(4),
            ..only(options(Some(5)))
        };
        let error = refused(with_rank);
        assert!(
            error.contains("rank") && error.contains("--prefix-only"),
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
        let plus = lora_plus(&options(16.0)).unwrap();
        assert_eq!(plus, Some(LoraPlus::default()));
        assert!(lora_plus(&options(0.0)).is_err());
        let full = TrainOptions {
            full: true,
            ..options(2.0)
        };
        assert!(lora_plus(&full).is_err());
        let alone = TrainOptions {
            loraplus_lr_embedding: Some(1e-5),
            ..TrainOptions::default()
        };
        assert!(lora_plus(&alone).is_err());
    }
}
