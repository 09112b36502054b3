//! Architecture of a model: names in Python, output layers, fused projections.

use super::fused::FusedProjection;
use super::names::ends_in;

/// Names that heads of classifiers have in transformers. PEFT saves both with each adapter of a classifier, and a model has one of
/// them.
pub const CLASSIFICATION_HEADS: [&str; 2] = ["classifier", "score"];

/// Architecture of a model, as far as adapters need it: targets are named as users know them, and files are the ones that
/// Python reads.
#[derive(Clone, Debug, Default)]
pub struct Architecture {
    /// Names of output layers, such as `lm_head`. [`TargetModules::AllLinear`](crate::TargetModules::AllLinear) excludes
    /// them.
    pub output_layers: Vec<String>,
    /// Projections that hold several matrices side by side.
    pub fused: Vec<FusedProjection>,
    /// Path components that have another name in Python, as `(here, there)`: no field in Rust can be called `self`. An
    /// empty name leaves the component out, and one with a dot stands for two components.
    pub names: Vec<(String, String)>,
    /// Names of the linear layers that are `Conv1D` in Python: files hold their weights as `[in, out]`, like this crate, and
    /// those of other linear layers as `[out, in]`.
    pub conv1d: Vec<String>,
    /// Names of the modules with a row for each token, the input embedding first: then the output layer, if the model has
    /// one.
    pub vocabulary: Vec<String>,
}

impl Architecture {
    /// Architecture without output layers, fused projections and names of its own in Python.
    pub(crate) const PLAIN: Self = Self {
        output_layers: Vec::new(),
        fused: Vec::new(),
        names: Vec::new(),
        conv1d: Vec::new(),
        vocabulary: Vec::new(),
    };

    /// Returns the fused projection that a module is; `None` for any other.
    pub fn fused_projection(&self, module: &str) -> Option<&FusedProjection> {
        let mut fused = self.fused.iter();
        fused.find(|fused| ends_in(module, &fused.module))
    }

    /// Returns the name in Python of the module or parameter at this path.
    ///
    /// ```
    /// use lora_core::Architecture;
    ///
    /// let names = vec![("self_attn".into(), "self".into()), ("Plain".into(), "".into())];
    /// let architecture = Architecture { names, ..Architecture::default() };
    /// assert_eq!(architecture.module_name("layer.0.self_attn.Plain.query"), "layer.0.self.query");
    /// ```
    pub fn module_name(&self, path: &str) -> String {
        let mut components = Vec::new();
        for component in path.split('.') {
            let renamed = self.names.iter().find(|(here, _)| here == component);
            let name = renamed.map_or(component, |(_, there)| there.as_str());
            if !name.is_empty() {
                components.push(name);
            }
        }
        components.join(".")
    }

    /// Returns the name in files of the parameter at this path: as [`module_name`](Self::module_name), with
    /// `weight` and `bias` for the `gamma` and `beta` of Burn's norms.
    pub fn tensor_name(&self, path: &str) -> String {
        let name = self.module_name(path);
        for (ours, theirs) in [(".gamma", ".weight"), (".beta", ".bias")] {
            if let Some(module) = name.strip_suffix(ours) {
                return format!("{module}{theirs}");
            }
        }
        name
    }

    /// Returns true if the linear layer of this name is a `Conv1D` in Python.
    pub fn is_conv1d(&self, module: &str) -> bool {
        self.conv1d.iter().any(|name| ends_in(module, name))
    }

    /// Returns true if the module of this name is an output layer.
    pub fn is_output(&self, module: &str) -> bool {
        self.output_layers.iter().any(|name| ends_in(module, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_by_component_and_norms_by_their_last() {
        let architecture = Architecture {
            names: [
                ("pooler", "bert.pooler"),
                ("Bert", ""),
                ("norm", "LayerNorm"),
            ]
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .to_vec(),
            conv1d: vec!["attn.c_proj".into()],
            ..Architecture::default()
        };
        assert_eq!(
            architecture.module_name("pooler.dense"),
            "bert.pooler.dense"
        );
        assert_eq!(
            architecture.tensor_name("Bert.norm.gamma"),
            "LayerNorm.weight"
        );
        assert_eq!(architecture.tensor_name("x.beta"), "x.bias");
        assert_eq!(architecture.tensor_name("normal.weight"), "normal.weight");
        assert!(architecture.is_conv1d("h.0.attn.c_proj"));
        assert!(!architecture.is_conv1d("h.0.mlp.c_proj"));
    }
}
