//! Names of our sockets in the kubelet's directory.

/// Name of a resource's socket: `pitcrew-gpu.sock` for `nvidia.com/gpu`. One that doesn't fit in has a number made of
/// its name instead.
pub(super) fn socket_name(resource: &str, most: usize) -> String {
    let name = resource.strip_prefix("nvidia.com/").unwrap_or(resource);
    let file = format!("pitcrew-{}.sock", name.replace('/', "-"));
    if file.len() <= most {
        return file;
    }
    // FNV-1a: the same in every version of this program, so that no socket is forgotten at an upgrade.
    let hash = resource.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("pitcrew-{hash:016x}.sock")
}

/// True for the name of a socket that a device plugin of ours may have left in the kubelet's directory.
pub fn is_our_socket(file: &str) -> bool {
    file.starts_with("pitcrew-") && file.strip_suffix(".sock").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_called_by_their_resource_as_long_as_the_kernel_takes_the_path() {
        assert_eq!(socket_name("nvidia.com/gpu", 40), "pitcrew-gpu.sock");
        assert_eq!(
            socket_name("nvidia.com/mig-1g.10gb.me.shared", 40),
            "pitcrew-mig-1g.10gb.me.shared.sock"
        );
        assert_eq!(socket_name("example.org/gpu", 40), "pitcrew-example.org-gpu.sock");
        let long = format!("nvidia.com/{}", "a".repeat(52));
        assert_eq!(socket_name(&long, 40).len(), 29);
        assert!(is_our_socket(&socket_name(&long, 40)) && !is_our_socket("nvidia-gpu.sock"));
        assert_ne!(socket_name(&long, 40), socket_name(&format!("{long}b"), 40));
    }
}
