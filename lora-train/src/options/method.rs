//! Training method: `--method`, and the flags that it replaces.

use super::TrainOptions;
use crate::TrainError;
use lora_models::adapter_layers::AdapterLayersConfig;
use lora_models::prefix::PrefixKind;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Part of a method, by its name in options and recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodPart {
    /// Low-rank factors.
    Lora,
    /// All weights.
    Full,
    /// All biases (Ben Zaken et al. 2021).
    BitFit,
    /// The last two layers whole, FT-Top2 of the paper.
    Top2,
    /// Adapter layers after attention and MLP (Houlsby et al. 2019).
    AdapterH,
    /// Adapter layers after the MLP with a layer norm (Lin et al. 2020).
    AdapterL,
    /// Adapter layers after the MLP (Pfeiffer et al. 2021).
    AdapterP,
    /// Embeddings of virtual tokens: prompt tuning, the paper's prefix-embedding.
    Prompt,
    /// Keys and values of virtual tokens (Li and Liang 2021).
    Prefix,
    /// Activations of virtual tokens, the paper's prefix-layer.
    PrefixLayer,
}

impl MethodPart {
    /// All parts with their names.
    const NAMED: [(&'static str, Self); 10] = [
        ("lora", Self::Lora),
        ("full", Self::Full),
        ("bitfit", Self::BitFit),
        ("adapter-h", Self::AdapterH),
        ("adapter-l", Self::AdapterL),
        ("adapter-p", Self::AdapterP),
        ("prompt", Self::Prompt),
        ("prefix", Self::Prefix),
        ("prefix-layer", Self::PrefixLayer),
        ("top2", Self::Top2),
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        let mut named = Self::NAMED.iter();
        let found = named.find(|(_, part)| *part == self);
        found.map_or("", |(name, _)| name)
    }

    /// Returns the adapter layers of the part, with their defaults; `None` for any other part.
    pub fn adapter_layers(self) -> Option<AdapterLayersConfig> {
        match self {
            Self::AdapterH => Some(AdapterLayersConfig::houlsby()),
            Self::AdapterL => Some(AdapterLayersConfig::lin()),
            Self::AdapterP => Some(AdapterLayersConfig::pfeiffer()),
            _ => None,
        }
    }

    /// Returns the virtual tokens of the part; `None` for any other part.
    pub fn prefix(self) -> Option<PrefixKind> {
        match self {
            Self::Prompt => Some(PrefixKind::Embeddings),
            Self::Prefix => Some(PrefixKind::KeysAndValues),
            Self::PrefixLayer => Some(PrefixKind::Activations),
            _ => None,
        }
    }
}

/// Method of a run: one part, or several that are trained together.
///
/// At most one part trains weights of the model itself (`lora`, `bitfit`, `full`, `top2`), one has adapter layers, and one has
/// virtual tokens. `full` and `top2` stand alone.
///
/// ```
/// use lora_train::options::Method;
///
/// let method: Method = "lora+prompt".parse().unwrap();
/// assert_eq!(method.to_string(), "lora+prompt");
/// assert!("lora+full".parse::<Method>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(Vec<MethodPart>);

impl Default for Method {
    fn default() -> Self {
        Self(vec![MethodPart::Lora])
    }
}

impl Method {
    /// Creates a method of parts.
    ///
    /// # Errors
    /// A message if the parts do not go together.
    pub fn new(parts: Vec<MethodPart>) -> Result<Self, String> {
        let names = |of: &dyn Fn(MethodPart) -> bool| -> Vec<&'static str> {
            let parts = parts.iter().filter(|part| of(**part));
            parts.map(|part| part.name()).collect()
        };
        use MethodPart as Part;
        let owns =
            names(&|part| matches!(part, Part::Lora | Part::Full | Part::BitFit | Part::Top2));
        let layers = names(&|part| part.adapter_layers().is_some());
        let virtual_tokens = names(&|part| part.prefix().is_some());
        let alone = names(&|part| matches!(part, Part::Full | Part::Top2));
        if parts.is_empty() {
            return Err("names no method".into());
        }
        if let ([alone], true) = (alone.as_slice(), parts.len() > 1) {
            return Err(format!(
                "`{alone}` trains weights of the model and stands alone"
            ));
        }
        if let ["lora", "bitfit"] | ["bitfit", "lora"] = owns.as_slice() {
            return Err("is `lora` with `bitfit`: give `lora` alone, with --bias all".into());
        }
        for (found, what) in [
            (owns, "train weights of the model itself"),
            (layers, "are adapter layers"),
            (virtual_tokens, "are virtual tokens"),
        ] {
            if let [first, second, ..] = found.as_slice() {
                return Err(format!(
                    "`{first}` and `{second}` both {what}; give one of them"
                ));
            }
        }
        Ok(Self(parts))
    }

    /// Returns true if the method has a part.
    pub fn has(&self, part: MethodPart) -> bool {
        self.0.contains(&part)
    }

    /// Returns true if all weights are trained.
    pub fn is_full(&self) -> bool {
        self.has(MethodPart::Full)
    }

    /// Returns the adapter layers, with their defaults.
    pub fn adapter_layers(&self) -> Option<AdapterLayersConfig> {
        self.0.iter().find_map(|part| part.adapter_layers())
    }

    /// Returns the kind of the virtual tokens.
    pub fn prefix(&self) -> Option<PrefixKind> {
        self.0.iter().find_map(|part| part.prefix())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|part| part.name()).collect();
        f.write_str(&names.join("+"))
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |name: &str| {
            let mut named = MethodPart::NAMED.iter();
            let found = named.find(|(other, _)| *other == name.trim());
            let names = MethodPart::NAMED.map(|(name, _)| name).join(", ");
            let unknown = || format!("has `{name}`, expected {names}, joined by +");
            found.map(|(_, part)| *part).ok_or_else(unknown)
        };
        Self::new(text.split('+').map(part).collect::<Result<_, _>>()?)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl TrainOptions {
    /// Returns the method: that of `method`, or else that of the flags `full`, `bitfit`, `prefix` and `prefix_only`. This is the
    /// only place that reads these flags.
    ///
    /// # Errors
    /// [`TrainError::Config`] if flags contradict each other or `method`.
    pub fn method(&self) -> Result<Method, TrainError> {
        use MethodPart as Part;
        let flags = [
            ("full", self.full, Part::Full),
            ("bitfit", self.bitfit, Part::BitFit),
            ("prefix_only", self.prefix_only, Part::Prefix),
            ("prefix", self.prefix.is_some(), Part::Prefix),
        ];
        let Some(method) = &self.method else {
            return self.of_flags();
        };
        for (name, given, part) in flags {
            if given && !method.has(part) {
                let message = format!(
                    "is given beside the method {method}, which has no `{}`; leave it out, or give --method with `{}`",
                    part.name(),
                    part.name()
                );
                return Err(TrainError::config(name, message));
            }
        }
        let also = [Part::Lora, Part::BitFit].into_iter();
        if let Some(part) = also
            .filter(|_| self.prefix_only)
            .find(|part| method.has(*part))
        {
            let message = format!(
                "trains a prefix alone, but the method {method} has `{}`; give one",
                part.name()
            );
            return Err(TrainError::config("prefix_only", message));
        }
        Ok(method.clone())
    }

    /// Returns the method of the flags.
    fn of_flags(&self) -> Result<Method, TrainError> {
        use MethodPart as Part;
        let refuse = |name: &str, message: &str| Err(TrainError::config(name, message));
        if self.full && self.bitfit {
            let message = "trains only biases, but --full trains all weights; give one";
            return refuse("bitfit", message);
        }
        let excluded = [
            ("bitfit", self.bitfit),
            ("full", self.full),
            ("modules_to_save", self.modules_to_save.is_some()),
            ("new_tokens", self.new_tokens.is_some()),
        ];
        let mut excluded = excluded.iter().filter(|_| self.prefix_only);
        if let Some((name, _)) = excluded.find(|(_, given)| *given) {
            let message =
                "cannot be used with --prefix-only, which trains only the prefix; give one";
            return Err(TrainError::config(*name, message));
        }
        if self.full && self.prefix.is_some() {
            let message = "needs a frozen model, but --full trains all weights; give one";
            return refuse("prefix", message);
        }
        let mut parts = vec![match (self.full, self.bitfit) {
            (true, _) => Part::Full,
            (_, true) => Part::BitFit,
            _ => Part::Lora,
        }];
        if self.prefix_only {
            parts.clear();
        }
        if self.prefix.is_some() || self.prefix_only {
            parts.push(Part::Prefix);
        }
        Method::new(parts).map_err(|message| TrainError::config("method", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(method: &str) -> TrainOptions {
        TrainOptions {
            method: Some(method.parse().unwrap()),
            ..TrainOptions::default()
        }
    }

    #[test]
    fn parts_that_exclude_each_other_are_refused_with_the_way_out() {
        for good in [
            "lora",
            "lora+prompt",
            "prefix-layer+lora",
            "bitfit+prefix",
            "lora+adapter-h",
            "adapter-p+prompt",
            "top2",
            "full",
        ] {
            assert_eq!(good.parse::<Method>().unwrap().to_string(), good);
        }
        for (bad, words) in [
            ("lora+full", "alone"),
            ("top2+prefix", "alone"),
            ("lora+bitfit", "--bias all"),
            ("adapter-h+adapter-p", "give one of them"),
            ("prompt+prefix", "give one of them"),
            ("lora+lora", "give one of them"),
            ("ia3", "prefix-layer"),
            ("", "expected"),
        ] {
            let message = bad.parse::<Method>().unwrap_err();
            assert!(message.contains(words), "{bad}: {message}");
        }
    }

    #[test]
    fn flags_and_method_agree_or_are_refused() {
        let method = |options: &TrainOptions| options.method().unwrap().to_string();
        assert_eq!(method(&TrainOptions::default()), "lora");
        let flags = |full, bitfit, prefix, prefix_only| TrainOptions {
            full,
            bitfit,
            prefix,
            prefix_only,
            ..TrainOptions::default()
        };
        assert_eq!(method(&flags(true, false, None, false)), "full");
        assert_eq!(method(&flags(false, true, Some(3), false)), "bitfit+prefix");
        assert_eq!(method(&flags(false, false, Some(3), false)), "lora+prefix");
        assert_eq!(method(&flags(false, false, Some(3), true)), "prefix");
        assert!(flags(true, true, None, false).method().is_err());
        assert!(flags(true, false, Some(3), false).method().is_err());

        let agreeing = TrainOptions {
            prefix: Some(5),
            ..given("lora+prefix")
        };
        assert_eq!(method(&agreeing), "lora+prefix");
        for (options, name) in [
            (
                TrainOptions {
                    full: true,
                    ..given("lora")
                },
                "full",
            ),
            (
                TrainOptions {
                    prefix: Some(5),
                    ..given("lora+prompt")
                },
                "prefix",
            ),
            (
                TrainOptions {
                    prefix_only: true,
                    ..given("lora+prefix")
                },
                "prefix_only",
            ),
        ] {
            let error = options.method().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("method"), "{error}");
        }
    }

    #[test]
    fn a_recipe_has_the_method_as_text() {
        let options: TrainOptions = toml::from_str("method = \"lora+prefix-layer\"").unwrap();
        assert_eq!(options, given("lora+prefix-layer"));
        assert_eq!(
            options.to_toml().unwrap(),
            "method = \"lora+prefix-layer\"\n"
        );
        let error = toml::from_str::<TrainOptions>("method = \"lora+full\"").unwrap_err();
        assert!(error.to_string().contains("alone"), "{error}");
    }
}
