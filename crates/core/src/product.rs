//! Product names as label values, spelled as GPU Feature Discovery does.

use crate::mig::Profile;

/// Value of `nvidia.com/gpu.product`: characters that a label can't carry dropped, words joined by dashes.
///
/// Source: the reference's rule, fact sheet `devices`, section 2.1.
pub fn label(name: &str) -> String {
    let kept: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' '))
        .collect();
    kept.split_whitespace().collect::<Vec<_>>().join("-")
}

/// The product label of a shared GPU whose resource was not renamed.
pub fn shared_label(name: &str) -> String {
    format!("{}-SHARED", label(name))
}

/// The product label of a MIG device. `+` can't stand in a label and becomes a dot.
pub fn mig_label(name: &str, profile: &Profile) -> String {
    format!("{}-MIG-{}", label(name), profile.to_string().replace('+', "."))
}

/// The product label of a GPU whose MIG layout doesn't suit the strategy `single`.
pub fn invalid_mig_label(name: &str) -> String {
    format!("{}-MIG-INVALID", label(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_spelled_as_the_reference_spells_them() {
        assert_eq!(label("NVIDIA GeForce RTX 3060"), "NVIDIA-GeForce-RTX-3060");
        assert_eq!(
            label("  NVIDIA  H100 80GB HBM3 (rev/2) "),
            "NVIDIA-H100-80GB-HBM3-rev2"
        );
        assert_eq!(shared_label("Tesla T4"), "Tesla-T4-SHARED");
        let profile = "1g.10gb+me".parse().unwrap();
        assert_eq!(
            mig_label("NVIDIA H100 80GB HBM3", &profile),
            "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me"
        );
        assert_eq!(invalid_mig_label("NVIDIA A30"), "NVIDIA-A30-MIG-INVALID");
    }
}
