//! What a model tells about itself: names, fused projections, layouts.

use super::pattern::ends_in;

/// What a model tells about itself, so that targets can be named as its users know them and its
/// files are the ones that Python reads.
#[derive(Clone, Debug, Default)]
pub struct Architecture {
    /// Names of output layers, which `all-linear` leaves out, such as `lm_head`.
    pub output_layers: Vec<String>,
    /// Projections that hold several matrices side by side.
    pub fused: Vec<FusedProjection>,
    /// Path components that have another name in Python, `(here, there)`: `self` is a name that no
    /// field in Rust can have. An empty name leaves the component out, one with a dot stands for
    /// two.
    pub names: Vec<(String, String)>,
    /// Names of the linear layers that Python keeps as `Conv1D`: their weights lie `[in, out]` in
    /// files, as here, where others lie `[out, in]`.
    pub conv1d: Vec<String>,
}

/// A projection `[d_in, parts · d]` that holds several matrices side by side, such as GPT-2's
/// `c_attn` with q, k and v.
#[derive(Clone, Debug)]
pub struct FusedProjection {
    /// Its name, by the end of its path.
    pub module: String,
    /// Names of the parts, from the first column on.
    pub parts: Vec<String>,
    /// How the columns are shared out.
    pub layout: FusedLayout,
}

/// How the columns of a fused projection are shared out among its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FusedLayout {
    /// All columns of the first part, then all of the second, as in GPT-2.
    #[default]
    PartByPart,
    /// Head by head: of each of this many heads the columns of all parts, as in DeBERTa.
    HeadByHead {
        /// The number of heads.
        heads: usize,
    },
}

impl Architecture {
    /// Architecture without output layers, fused projections and names of its own in Python.
    pub(crate) const PLAIN: Self = Self {
        output_layers: Vec::new(),
        fused: Vec::new(),
        names: Vec::new(),
        conv1d: Vec::new(),
    };

    /// The name in Python of the module or parameter at this path.
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

    /// The name in files of the parameter at this path: as [`module_name`](Self::module_name), and
    /// what Burn's norms call `gamma` and `beta` is `weight` and `bias`.
    pub fn tensor_name(&self, path: &str) -> String {
        let name = self.module_name(path);
        for (ours, theirs) in [(".gamma", ".weight"), (".beta", ".bias")] {
            if let Some(module) = name.strip_suffix(ours) {
                return format!("{module}{theirs}");
            }
        }
        name
    }

    /// Whether a linear layer of this name is a `Conv1D` in Python.
    pub fn is_conv1d(&self, module: &str) -> bool {
        self.conv1d.iter().any(|name| ends_in(module, name))
    }

    pub(crate) fn is_output(&self, module: &str) -> bool {
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
