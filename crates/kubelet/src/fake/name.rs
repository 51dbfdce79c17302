//! Which names extended resources may have.

/// The longest name of a resource without its domain.
const MAX_NAME: usize = 63;
/// The longest domain.
const MAX_DOMAIN: usize = 253;
/// What the name of a quota for the resource has before it, which must be a qualified name as well.
const QUOTA: &str = "requests.";

/// True for the name of an extended resource: with a domain, not Kubernetes' own, and not a quota's.
pub(super) fn is_extended(name: &str) -> bool {
    if name.starts_with(QUOTA) {
        return false;
    }
    let Some((domain, name)) = name.split_once('/') else {
        return false;
    };
    if domain.ends_with("kubernetes.io") {
        return false;
    }
    let outer = |byte: u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| outer(byte) || b"-_.".contains(&byte);
    // Both ends, so that a single letter is one of each.
    let is_name = name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && name.bytes().next().is_some_and(outer)
        && name.bytes().last().is_some_and(outer);
    is_name && QUOTA.len() + domain.len() <= MAX_DOMAIN && domain.split('.').all(is_label)
}

/// True for a part of a domain, in lower case.
fn is_label(label: &str) -> bool {
    let outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    label.bytes().all(|byte| outer(byte) || byte == b'-')
        && label.bytes().next().is_some_and(outer)
        && label.bytes().last().is_some_and(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_resources_have_a_domain_that_is_not_kubernetes_own() {
        for good in [
            "nvidia.com/gpu",
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-1g.5gb.me",
            "a/b",
            "x.y/A_b-c",
        ] {
            assert!(is_extended(good), "{good}");
        }
        let long = format!("nvidia.com/{}", "a".repeat(64));
        for bad in [
            "gpu",
            "cpu",
            "kubernetes.io/gpu",
            "x.kubernetes.io/gpu",
            "requests.nvidia.com/gpu",
            "nvidia.com/",
            "/gpu",
            "nvidia.com/gpu/0",
            "Nvidia.com/gpu",
            "nvidia..com/gpu",
            "nvidia.com/-gpu",
            "nvidia.com/gpu.",
            "nvidia.com/gpü",
            "-a/b",
            "",
            long.as_str(),
        ] {
            assert!(!is_extended(bad), "{bad}");
        }
    }
}
