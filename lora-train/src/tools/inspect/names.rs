//! Which module a tensor of an adapter is of, by its name in each format.

use lora_core::peft::PREFIX;
use lora_models::formats::AdapterFormat;

/// What of an adapter a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
    Magnitude,
    Bias,
}

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub module: &'a str,
    pub part: Part,
    pub embedding: bool,
}

const PEFT: [(&str, Part, bool); 6] = [
    (".lora_A.weight", Part::A, false),
    (".lora_B.weight", Part::B, false),
    (".lora_embedding_A", Part::A, true),
    (".lora_embedding_B", Part::B, true),
    (".lora_magnitude_vector", Part::Magnitude, false),
    (".lora_B.bias", Part::Bias, false),
];
const LORALIB: [(&str, Part, bool); 2] = [(".lora_A", Part::A, false), (".lora_B", Part::B, false)];
const MLX: [(&str, Part, bool); 3] = [
    (".lora_a", Part::A, false),
    (".lora_b", Part::B, false),
    (".m", Part::Magnitude, false),
];

/// `torch.save({"model_state_dict": …})` of the paper's GPT-2.
const NESTED: &str = "model_state_dict.";

/// What comes before a module's path in a format.
pub(super) fn prefix(format: AdapterFormat) -> &'static str {
    match format {
        AdapterFormat::Peft => PREFIX,
        AdapterFormat::Loralib => NESTED,
        AdapterFormat::Mlx => "",
    }
}

/// The name without the format's prefix.
pub(super) fn plain(format: AdapterFormat, name: &str) -> &str {
    name.strip_prefix(prefix(format)).unwrap_or(name)
}

/// Where a tensor belongs, by its name without the prefix; `None` of one that is no part of an adapter.
pub(super) fn place(format: AdapterFormat, name: &str) -> Option<Place<'_>> {
    let suffixes: &[(&str, Part, bool)] = match format {
        AdapterFormat::Peft => &PEFT,
        AdapterFormat::Loralib => &LORALIB,
        AdapterFormat::Mlx => &MLX,
    };
    suffixes.iter().find_map(|&(suffix, part, embedding)| {
        let module = name.strip_suffix(suffix)?;
        Some(Place {
            module,
            part,
            embedding,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_format_tell_module_and_part() {
        let found = |format, name: &'static str| {
            let place = place(format, plain(format, name));
            place.map(|p| (p.module, p.part, p.embedding))
        };
        let peft = |name| found(AdapterFormat::Peft, name);
        assert_eq!(
            peft("base_model.model.h.0.q.lora_A.weight"),
            Some(("h.0.q", Part::A, false))
        );
        assert_eq!(
            peft("base_model.model.wte.lora_embedding_B"),
            Some(("wte", Part::B, true))
        );
        assert_eq!(peft("base_model.model.score.weight"), None);
        assert_eq!(
            found(AdapterFormat::Loralib, "model_state_dict.h.0.c_attn.lora_B"),
            Some(("h.0.c_attn", Part::B, false))
        );
        assert_eq!(
            found(AdapterFormat::Mlx, "layers.1.q.m"),
            Some(("layers.1.q", Part::Magnitude, false))
        );
    }
}
