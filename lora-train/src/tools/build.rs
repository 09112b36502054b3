//! Facts about a build of the program.

use crate::device;
use serde::Serialize;
use std::sync::LazyLock;

/// Facts about a build of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Version of the program.
    pub version: &'static str,
    /// Commit that it was built from, if `LORA_COMMIT` named it during the build.
    pub commit: Option<&'static str>,
    /// Version of Burn.
    pub burn: &'static str,
    /// Operating system and architecture.
    pub system: String,
    /// Backends that are compiled in, `fusion`, `hub` and `parquet`.
    pub features: Vec<String>,
}

impl Build {
    /// Returns the facts about this build.
    pub fn current() -> Self {
        let backends = device::backends();
        let mut features: Vec<String> = backends.iter().map(ToString::to_string).collect();
        let others = [
            ("fusion", device::has_fusion()),
            ("hub", cfg!(feature = "hub")),
            ("parquet", cfg!(feature = "parquet")),
        ];
        let others = others.into_iter().filter(|(_, compiled_in)| *compiled_in);
        features.extend(others.map(|(name, _)| name.to_string()));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("LORA_COMMIT"),
            burn: device::BURN_VERSION,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            features,
        }
    }

    /// Returns the text of `lora --version` after the name of the program: the version, and a line for each other fact.
    pub fn long_version() -> &'static str {
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            let build = Build::current();
            format!(
                "{}\ncommit    {}\nBurn      {}\nsystem    {}\nfeatures  {}",
                build.version,
                build.commit.unwrap_or("unknown"),
                build.burn,
                build.system,
                build.features.join(", ")
            )
        });
        &TEXT
    }
}
