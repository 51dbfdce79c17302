//! The node's container runtime: how a GPU reaches a container here, and what must be installed for it.

/// How a GPU reaches a container on this node: what is found on it decides, never a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Not known yet.
    Unknown,
    /// containerd 2.0 and later: the kubelet hands it names of CDI devices.
    Native,
    /// containerd 1.6 and 1.7: device nodes and mounts in the answer to the kubelet.
    Mounts,
    /// Through a handler of the runtime, which is our OCI wrapper.
    Handler,
}
