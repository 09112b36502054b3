//! Initialization of the factors: [`LoraInit`].

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Initialization of the factors. Its text form is that of PEFT's `init_lora_weights`, except `true` and `false`.
///
/// On an embedding `A` and `B` change places in the first two, as in PEFT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LoraInit {
    /// `kaiming_uniform`: `A` uniform in `±1/√d_in` (Kaiming uniform with a = √5), `B` zero. PEFT's `true`
    /// and loralib's default. Training begins at the pretrained model (Hu et al. 2021, section 4.1).
    #[default]
    KaimingUniform,
    /// `gaussian`: `A` normal with standard deviation 1/rank, `B` zero.
    Gaussian,
    /// `orthogonal`: both random, in two orthogonal halves of the rank, so that `A B` is zero. The rank must be even.
    Orthogonal,
    /// `pissa`: the largest singular values of the weight and their vectors (Meng et al. 2024, arXiv
    /// 2404.02948). The update is their change.
    Pissa,
    /// `pissa_niter_N`: the same, by N rounds of subspace iteration instead of the exact decomposition.
    FastPissa {
        /// Number of rounds.
        iterations: usize,
    },
    /// `olora`: the first columns of Q and rows of R in the weight's QR decomposition (Büyükakyüz 2024,
    /// arXiv 2406.01775). The update is their change.
    Olora,
    /// `random`: both random, so that the adapter changes the model from the start. PEFT's `false`, for
    /// tests.
    Random,
}

impl LoraInit {
    /// Returns true if the factors start at a part of the weight, so that the update is `A B − A₀ B₀`.
    pub(crate) fn is_residual(self) -> bool {
        matches!(self, Self::Pissa | Self::FastPissa { .. } | Self::Olora)
    }
}

impl fmt::Display for LoraInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KaimingUniform => "kaiming_uniform",
            Self::Gaussian => "gaussian",
            Self::Orthogonal => "orthogonal",
            Self::Pissa => "pissa",
            Self::FastPissa { iterations } => return write!(f, "pissa_niter_{iterations}"),
            Self::Olora => "olora",
            Self::Random => "random",
        })
    }
}

impl FromStr for LoraInit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.replace('-', "_").to_lowercase();
        let iterations = name.strip_prefix("pissa_niter_").map(str::parse);
        Ok(match (name.as_str(), iterations) {
            (_, Some(Ok(iterations))) => Self::FastPissa { iterations },
            ("kaiming_uniform", _) => Self::KaimingUniform,
            ("gaussian", _) => Self::Gaussian,
            ("orthogonal", _) => Self::Orthogonal,
            ("pissa", _) => Self::Pissa,
            ("olora", _) => Self::Olora,
            ("random", _) => Self::Random,
            _ => {
                return Err(format!(
                    "`{text}` is not an initialization of the factors; expected kaiming_uniform, gaussian, orthogonal, \
                     pissa, pissa_niter_N, olora or random"
                ));
            }
        })
    }
}

impl TryFrom<String> for LoraInit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LoraInit> for String {
    fn from(init: LoraInit) -> Self {
        init.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for init in [
            LoraInit::KaimingUniform,
            LoraInit::Gaussian,
            LoraInit::Orthogonal,
            LoraInit::Pissa,
            LoraInit::FastPissa { iterations: 16 },
            LoraInit::Olora,
            LoraInit::Random,
        ] {
            assert_eq!(init.to_string().parse(), Ok(init));
        }
        assert_eq!("kaiming-uniform".parse(), Ok(LoraInit::KaimingUniform));
        for bad in ["", "pissa_niter_", "pissa_niter_x", "loftq"] {
            assert!(LoraInit::from_str(bad).is_err(), "{bad}");
        }
    }
}
