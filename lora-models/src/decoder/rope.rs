//! Angles of rotary position embeddings.

use burn::tensor::{Device, Tensor, TensorData};
use std::f64::consts::PI;

/// Rotary position embedding of some layers.
///
/// The frequencies are `f_i = θ^(-2i/D)`, changed by the kind, as in `modeling_rope_utils.py` of transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base θ.
    pub theta: f64,
    /// Number D of features of a head that turn.
    pub features: usize,
    /// Kind.
    pub kind: RopeKind,
}

/// Kind of a rotary position embedding: its frequencies, and a factor on the sines and cosines.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeKind {
    /// The frequencies as they are.
    Default,
    /// Divided by a factor.
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Low frequencies divided by a factor, with a smooth passage (Llama 3.1).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Turns within the original length up to which a frequency is low.
        low: f64,
        /// Turns within the original length from which on a frequency is high.
        high: f64,
        /// Length that the model was first trained with.
        original: f64,
    },
    /// Low frequencies divided by a factor, with a ramp over the features (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Turns within the original length from which on a frequency is high.
        beta_fast: f64,
        /// Turns within the original length up to which a frequency is low.
        beta_slow: f64,
        /// Length that the model was first trained with.
        original: f64,
        /// Rounds the ends of the ramp to whole features.
        truncate: bool,
        /// Factor on sines and cosines.
        attention_factor: f64,
    },
    /// A divisor for each frequency, one set for short and one for long inputs (Ding et al. 2024, arXiv 2402.13753).
    LongRope {
        /// Divisors up to the original length.
        short: Vec<f64>,
        /// Divisors beyond it.
        long: Vec<f64>,
        /// Length that the model was first trained with.
        original: usize,
        /// Factor on sines and cosines.
        attention_factor: f64,
    },
}

/// Cosines and sines of the angles of positions, each `[batch or 1, seq, D/2]`.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Cosines.
    pub cos: Tensor<3>,
    /// Sines.
    pub sin: Tensor<3>,
}

impl Rope {
    /// Returns the frequencies for inputs of `length` tokens, in the precision of transformers.
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        let d = self.features as f64;
        let pairs = self.features / 2;
        let plain = (0..pairs).map(|pair| {
            let power = (2 * pair) as f32 / self.features as f32;
            1.0 / (self.theta as f32).powf(power)
        });
        match &self.kind {
            RopeKind::Default => plain.collect(),
            RopeKind::Linear { factor } => plain.map(|f| f / *factor as f32).collect(),
            &RopeKind::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let changed = |f: f32| {
                    let f = f64::from(f);
                    let wave = 2.0 * PI / f;
                    if wave < original / high {
                        f
                    } else if wave > original / low {
                        f / factor
                    } else {
                        let share = (original / wave - low) / (high - low);
                        (1.0 - share) * f / factor + share * f
                    }
                };
                plain.map(|f| changed(f) as f32).collect()
            }
            &RopeKind::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original,
                truncate,
                ..
            } => {
                let place =
                    |turns: f64| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (mut start, mut end) = (place(beta_fast), place(beta_slow));
                if truncate {
                    (start, end) = (start.floor(), end.ceil());
                }
                let start = start.max(0.0);
                let mut end = end.min(d - 1.0);
                if start == end {
                    end += 0.001;
                }
                let changed = |(pair, f): (usize, f32)| {
                    let ramp = ((pair as f64 - start) / (end - start)).clamp(0.0, 1.0);
                    let f = f64::from(f);
                    (f / factor * ramp + f * (1.0 - ramp)) as f32
                };
                plain.enumerate().map(changed).collect()
            }
            RopeKind::LongRope {
                short,
                long,
                original,
                ..
            } => {
                let divisors = if length > *original { long } else { short };
                let changed = |(f, divisor): (f32, &f64)| f / *divisor as f32;
                plain.zip(divisors).map(changed).collect()
            }
        }
    }

    /// Returns the factor on sines and cosines.
    pub fn factor(&self) -> f64 {
        match self.kind {
            RopeKind::Yarn {
                attention_factor, ..
            }
            | RopeKind::LongRope {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }

    /// Computes the angles of positions `[rows, seq]`, row-major. They are computed on the host: the sines of GPUs lose precision
    /// with large angles.
    pub(super) fn angles(
        &self,
        positions: &[i64],
        [rows, seq]: [usize; 2],
        device: &Device,
    ) -> Angles {
        let longest = positions.iter().max().map_or(0, |&last| last.max(0) + 1);
        let frequencies = self.frequencies(longest as usize);
        let factor = self.factor() as f32;
        let angles = positions.iter().flat_map(|&position| {
            let turn = move |f: &f32| position as f32 * f;
            frequencies.iter().map(turn)
        });
        let angles: Vec<f32> = angles.collect();
        let of = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle) * factor).collect();
            let data = TensorData::new(values, [rows, seq, frequencies.len()]);
            Tensor::from_data(data, device)
        };
        Angles {
            cos: of(f32::cos),
            sin: of(f32::sin),
        }
    }
}
