//! Valid names of adapters.

use crate::error::LoraError;

/// Limit on the length of a name in bytes, below that of file systems.
const LONGEST: usize = 200;

/// Refuses a name that is not a single component of a path: adapters are saved in directories of their name.
///
/// # Errors
/// [`LoraError::AdapterName`].
pub fn check_name(name: &str) -> Result<(), LoraError> {
    let refuse = |message: &str| {
        Err(LoraError::AdapterName {
            name: name.chars().take(LONGEST).collect(),
            message: message.into(),
        })
    };
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.len() > LONGEST {
        return refuse("is longer than 200 bytes");
    }
    if name.starts_with('.') {
        return refuse("begins with a dot");
    }
    let reserved = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    match name.chars().find(|c| reserved(*c)) {
        Some(c) => refuse(&format!("has {c:?} in it")),
        None if name.trim() != name => refuse("begins or ends with a space"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_single_component_of_a_path() {
        for good in ["default", "en-de", "v1.0", "größer", "a b"] {
            check_name(good).unwrap();
        }
        let long = "a".repeat(201);
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "a\\b",
            "c:",
            "a\n",
            " a",
            long.as_str(),
        ] {
            assert!(
                matches!(check_name(bad), Err(LoraError::AdapterName { .. })),
                "{bad:?}"
            );
        }
    }
}
