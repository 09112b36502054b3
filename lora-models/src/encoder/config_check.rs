//! Checks of an encoder's configuration.

use super::config::{EncoderConfig, EncoderFamily};
use crate::ModelError;
use crate::config_keys::{Require, check_dropouts, check_sizes};
use std::path::Path;

/// Limit for every size: the product of two stays within 64 bits.
const LARGEST: usize = 1 << 28;

/// Checks that the values describe a possible model.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] with the key of the first value that does not.
pub(super) fn check(path: &Path, config: &EncoderConfig) -> Result<(), ModelError> {
    let positions = config.max_position_embeddings;
    let sizes = [
        ("vocab_size", config.vocab_size, LARGEST),
        ("embedding_size", config.embedding_size, LARGEST),
        ("hidden_size", config.hidden_size, LARGEST),
        ("num_hidden_layers", config.num_hidden_layers, LARGEST),
        ("num_attention_heads", config.num_attention_heads, LARGEST),
        ("intermediate_size", config.intermediate_size, LARGEST),
        ("max_position_embeddings", positions, LARGEST),
    ];
    check_sizes(path, &sizes)?;
    let require = Require { path };
    let types = config.type_vocab_size;
    require.that(types <= LARGEST, "type_vocab_size", types, at_most)?;
    let (d, heads) = (config.hidden_size, config.num_attention_heads);
    // The heads of a decoder may have a width of their own.
    let fits = config.decoder.is_some() || d.is_multiple_of(heads);
    require.that(fits, "hidden_size", d, || {
        format!("a multiple of the {heads} heads")
    })?;
    let classifier_dropout = match config.disentangled {
        Some(_) => "cls_dropout",
        None => "classifier_dropout",
    };
    let dropouts = [
        ("hidden_dropout_prob", config.hidden_dropout),
        ("attention_probs_dropout_prob", config.attention_dropout),
        ("pooler_dropout", config.pooler_dropout),
        (classifier_dropout, config.classifier_dropout.unwrap_or(0.0)),
    ];
    check_dropouts(path, &dropouts)?;
    for (key, value) in [
        ("layer_norm_eps", config.layer_norm_eps),
        ("initializer_range", config.initializer_range),
    ] {
        require.that(value.is_finite() && value >= 0.0, key, value, || {
            "a number of at least 0".into()
        })?;
    }
    let has_room = !config.family.is_roberta() || config.max_length() > 0;
    require.that(has_room, "max_position_embeddings", positions, || {
        let padding = u64::from(config.pad_token_id) + 1;
        format!("more than pad_token_id + 1 = {padding}")
    })?;
    let Some(attention) = &config.disentangled else {
        return Ok(());
    };
    let has_terms = !attention.relative || attention.terms.count() > 0;
    let first_version = config.family == EncoderFamily::Deberta;
    require.that(has_terms || !first_version, "pos_att_type", "empty", || {
        "c2p, p2c or both, with relative_attention".into()
    })?;
    let farthest = attention.max_distance;
    let fits = farthest <= LARGEST && attention.span() <= LARGEST;
    require.that(fits, "max_relative_positions", farthest, at_most)?;
    // Buckets are exact up to a half of them and logarithmic up to the largest distance.
    if let Some(buckets) = attention.buckets {
        let fits = buckets >= 4 && farthest > buckets / 2 + 1;
        require.that(fits, "position_buckets", buckets, || {
            format!("at least 4 and less than twice max_relative_positions = {farthest}")
        })?;
    }
    if let Some(conv) = attention.conv {
        let kernel = conv.kernel;
        let fits = !kernel.is_multiple_of(2) && kernel <= LARGEST;
        require.that(fits, "conv_kernel_size", kernel, || {
            "an odd number: an even one changes the length".into()
        })?;
        let divides = d.is_multiple_of(conv.groups);
        require.that(divides, "conv_groups", conv.groups, || {
            format!("a divisor of hidden_size = {d}")
        })?;
    }
    Ok(())
}

fn at_most() -> String {
    format!("at most {LARGEST}")
}
