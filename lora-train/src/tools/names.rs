//! Names of files for texts that come from options and files.

use sha2::{Digest, Sha256};

/// Returns a text as a name that a file can have on all systems, of at most this length before the digits of a hash. A name that had to
/// be changed ends in such digits, and so does one with capitals, which some systems do not tell from small letters: no two texts
/// have the same name.
pub(super) fn file_name(text: &str, most: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let cleaned = text.chars().take(most);
    let cleaned: String = cleaned.map(|c| if plain(c) { c } else { '-' }).collect();
    if cleaned == text && !text.contains(|c: char| c.is_ascii_uppercase()) {
        return cleaned;
    }
    format!("{cleaned}-{}", digits(text))
}

/// Returns 16 digits that stand for a text.
pub(super) fn digits(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_names_differ() {
        let name = |text: &str| file_name(text, 120);
        assert_eq!(name("seed-1_rank-4"), "seed-1_rank-4");
        let names = ["q,v", "q;v", "../x", "Q", "q"].map(name);
        assert!(names[0].starts_with("q-v-") && names[0] != names[1]);
        assert!(!names[2].contains('/'));
        assert_ne!(names[3].to_ascii_lowercase(), names[4]);
        // Among so many texts with the same beginning, six digits of a hash would be the same for about twelve pairs.
        let long = |i: usize| name(&format!("{}{i}", "x".repeat(200)));
        let names: std::collections::BTreeSet<String> = (0..20_000).map(long).collect();
        assert_eq!(names.len(), 20_000);
        assert!(names.iter().all(|name| name.len() == 137));
    }
}
