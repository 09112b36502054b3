//! Known wrong results of Burn, by version and backend.

use lora_core::ops::DeviceFacts;

/// Version of Burn in `Cargo.lock`, with which the program is built and tested.
pub const BURN_VERSION: &str = "0.22.1";

/// Report of wrong results that is open upstream.
struct Known {
    /// Versions of Burn that it was reported for, or is not known to be fixed in.
    versions: &'static [&'static str],
    /// Runtime of the affected devices, as in [`DeviceFacts::runtime`].
    runtime: &'static str,
    /// True if it needs kernel fusion.
    with_fusion: bool,
    /// Number of the issue in `tracel-ai/burn`.
    issue: u32,
    /// Description of the symptom.
    symptom: &'static str,
}

const KNOWN: [Known; 2] = [
    Known {
        versions: &["0.22.0", "0.22.1"],
        runtime: "cuda",
        with_fusion: true,
        issue: 4366,
        symptom: "inference with kernel fusion diverges",
    },
    Known {
        versions: &["0.22.0", "0.22.1"],
        runtime: "wgpu",
        with_fusion: true,
        issue: 5257,
        symptom: "kernel fusion and tuning together gave wrong values on Vulkan",
    },
];

/// Describes the known wrong results that may affect a GPU.
///
/// `fusion` is true if kernel fusion is compiled in.
pub fn known_problems(facts: &DeviceFacts, fusion: bool) -> Vec<String> {
    problems(BURN_VERSION, facts, fusion)
}

fn problems(version: &str, facts: &DeviceFacts, fusion: bool) -> Vec<String> {
    let affected = KNOWN.iter().filter(|known| {
        known.versions.contains(&version)
            && known.runtime == facts.runtime
            && !facts.software
            && (fusion || !known.with_fusion)
    });
    let described = affected.map(|known| {
        let Known { issue, symptom, .. } = known;
        format!("Burn {version}: {symptom} (tracel-ai/burn#{issue}, open)")
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(runtime: &str) -> DeviceFacts {
        DeviceFacts {
            runtime: runtime.into(),
            ..DeviceFacts::default()
        }
    }

    #[test]
    fn the_version_is_the_locked_one() {
        let locked = include_str!("../../../Cargo.lock").replace('\r', "");
        assert!(locked.contains(&format!("name = \"burn\"\nversion = \"{BURN_VERSION}\"\n")));
    }

    #[test]
    fn problems_are_those_of_the_version_and_the_device() {
        let cuda = problems("0.22.1", &facts("cuda"), true);
        assert!(cuda.len() == 1 && cuda[0].contains("burn#4366"), "{cuda:?}");
        let vulkan = problems("0.22.1", &facts("wgpu"), true);
        assert!(
            vulkan.len() == 1 && vulkan[0].contains("burn#5257"),
            "{vulkan:?}"
        );
        assert!(problems("0.22.1", &facts("wgpu"), false).is_empty());
        let software = DeviceFacts {
            software: true,
            ..facts("wgpu")
        };
        assert!(problems("0.22.1", &software, true).is_empty());
        assert!(problems("0.23.0", &facts("cuda"), true).is_empty());
        assert!(problems("0.22.1", &facts("flex"), true).is_empty());
    }
}
