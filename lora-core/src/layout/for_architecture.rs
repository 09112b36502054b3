//! A configuration for a model of known architecture.

use super::architecture::Architecture;

/// A configuration together with the [`Architecture`] of the model that it is applied to.
///
/// A function that takes `impl Into<ForArchitecture<'_, C>>` takes `&config` for a module without output layers, fused
/// projections or other names in Python, and
/// [`config.for_architecture(&architecture)`](crate::LoraConfig::for_architecture) for a model that has them.
#[derive(Clone, Copy, Debug)]
pub struct ForArchitecture<'a, C> {
    pub(crate) config: &'a C,
    pub(crate) architecture: &'a Architecture,
}

impl<'a, C> ForArchitecture<'a, C> {
    /// Joins a configuration and an architecture.
    pub fn new(config: &'a C, architecture: &'a Architecture) -> Self {
        Self {
            config,
            architecture,
        }
    }
}

impl<'a, C> From<&'a C> for ForArchitecture<'a, C> {
    fn from(config: &'a C) -> Self {
        static PLAIN: Architecture = Architecture::PLAIN;
        Self::new(config, &PLAIN)
    }
}
