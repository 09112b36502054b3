//! Largest batch whose activations a device binds in one buffer: [`BatchLimit`].

use crate::TrainError;
use burn::tensor::Device;
use lora_core::ops::max_buffer_bytes;
use lora_models::ModelSizes;

/// Largest batch whose activations a device binds in one buffer.
///
/// The check comes before a batch is on the device: a buffer above the limit is a panic, or wrong numbers. Scores of attention and
/// logits of a loss are computed in parts, and need no check.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// Limit in bytes; `None` without one.
    bytes: Option<u64>,
    sizes: ModelSizes,
}

impl BatchLimit {
    /// Creates the limit of a device for a model of these sizes.
    pub(crate) fn new(sizes: ModelSizes, device: &Device) -> Self {
        Self {
            bytes: max_buffer_bytes(device),
            sizes,
        }
    }

    /// Refuses a batch of `rows` inputs of `length` tokens that the device cannot take; `option` is that of the rows.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option, the need and the limit.
    pub(crate) fn check(&self, option: &str, [rows, length]: [usize; 2]) -> Result<(), TrainError> {
        let needed = self.sizes.largest_activation(rows, length);
        let what = format!("the activations of {rows} × {length} tokens take");
        let way_out = "give fewer examples or tokens in a batch (--grad-accumulation keeps the size of a step)";
        self.compare(option, needed, &what, way_out)
    }

    /// Refuses more texts at a time than the device has room for the next logits of.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_logits(&self, option: &str, rows: usize) -> Result<(), TrainError> {
        let needed = rows.saturating_mul(self.sizes.vocab_size);
        let what = format!("the logits of {rows} texts take");
        self.compare(option, needed, &what, "generate fewer at a time")
    }

    /// Compares a number of f32 values with the limit.
    fn compare(
        &self,
        option: &str,
        values: usize,
        what: &str,
        way_out: &str,
    ) -> Result<(), TrainError> {
        let needed = (values as u64).saturating_mul(4);
        let Some(limit) = self.bytes.filter(|limit| needed > *limit) else {
            return Ok(());
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let message = format!(
            "is too large for this device: {what} {:.1} MiB in one buffer, and it binds at most {:.1} MiB; {way_out}, \
             or take `--device flex` or a GPU with a higher limit",
            mib(needed),
            mib(limit)
        );
        Err(TrainError::config(option, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lora_core::ops::with_max_buffer_bytes;
    use lora_models::Preset;

    fn limit(preset: Preset, bytes: u64) -> BatchLimit {
        let sizes = preset.config().unwrap().sizes();
        with_max_buffer_bytes(bytes, || BatchLimit::new(sizes, &Device::flex()))
    }

    /// GPT-2's widest activations are 3072 features a token: 12 KiB.
    #[test]
    fn a_batch_is_refused_above_the_limit_and_not_at_it() {
        let gpt2 = limit(Preset::Gpt2, 12 << 20);
        assert!(gpt2.check("batch_size", [8, 128]).is_ok());
        let error = gpt2.check("batch_size", [8, 129]).unwrap_err().to_string();
        for part in [
            "batch_size",
            "8 × 129 tokens",
            "12.1 MiB",
            "at most 12.0 MiB",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // 50257 logits of a text are 196 KiB.
        assert!(gpt2.check_logits("batch_size", 62).is_ok());
        assert!(gpt2.check_logits("batch_size", 63).is_err());
    }

    /// DeBERTa's scores against distances, [8, 12, 512, 1024], are 192 MiB.
    #[test]
    fn scores_against_distances_count() {
        let mib = 1 << 20;
        assert!(
            limit(Preset::DebertaV3Base, 191 * mib)
                .check("batch_size", [8, 512])
                .is_err()
        );
        assert!(
            limit(Preset::DebertaV3Base, 192 * mib)
                .check("batch_size", [8, 512])
                .is_ok()
        );
        assert!(
            limit(Preset::RobertaBase, 48 * mib)
                .check("batch_size", [8, 512])
                .is_ok()
        );
    }

    #[test]
    fn a_cpu_has_no_limit() {
        let sizes = Preset::Gpt2.config().unwrap().sizes();
        let cpu = BatchLimit::new(sizes, &Device::flex());
        assert!(cpu.check("batch_size", [1 << 20, 1 << 20]).is_ok());
    }
}
