//! Names of an adapter's tensors in each format.

use lora_core::LayerKind;
use lora_core::file::{PREFIX, TensorRole, split_name};
use lora_models::formats::AdapterFormat;

/// Module and role of a tensor, with the kind of layer where the name says it.
type Place<'a> = (&'a str, TensorRole, Option<LayerKind>);

/// Returns the name without the format's prefix.
pub(super) fn plain(format: AdapterFormat, name: &str) -> &str {
    let prefix = match format {
        AdapterFormat::Peft => PREFIX,
        AdapterFormat::Loralib | AdapterFormat::Mlx => "",
    };
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Returns the place of a tensor by its name without the prefix; `None` if it is no part of an adapter.
pub(super) fn place(format: AdapterFormat, name: &str) -> Option<Place<'_>> {
    let suffixes: &[_] = match format {
        AdapterFormat::Peft => return split_name(name),
        AdapterFormat::Loralib => &[(".lora_A", TensorRole::A), (".lora_B", TensorRole::B)],
        AdapterFormat::Mlx => &[
            (".lora_a", TensorRole::A),
            (".lora_b", TensorRole::B),
            (".m", TensorRole::Magnitude),
        ],
    };
    let mut suffixes = suffixes.iter();
    suffixes.find_map(|&(suffix, role)| Some((name.strip_suffix(suffix)?, role, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_format_tell_module_and_part() {
        let found = |format, name: &'static str| {
            let place = place(format, plain(format, name));
            place.map(|(module, role, kind)| (module, role, kind == Some(LayerKind::Embedding)))
        };
        let peft = |name| found(AdapterFormat::Peft, name);
        assert_eq!(
            peft("base_model.model.h.0.q.lora_A.weight"),
            Some(("h.0.q", TensorRole::A, false))
        );
        assert_eq!(
            peft("base_model.model.wte.lora_embedding_B"),
            Some(("wte", TensorRole::B, true))
        );
        assert_eq!(peft("base_model.model.score.weight"), None);
        assert_eq!(
            found(AdapterFormat::Loralib, "h.0.c_attn.lora_B"),
            Some(("h.0.c_attn", TensorRole::B, false))
        );
        assert_eq!(
            found(AdapterFormat::Mlx, "layers.1.q.m"),
            Some(("layers.1.q", TensorRole::Magnitude, false))
        );
    }
}
