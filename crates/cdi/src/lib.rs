//! CDI, the Container Device Interface: how a container runtime is told what a device needs in a container.
//!
//! [`spec`] holds the types and rules of CDI 0.3 to 1.1, and nothing else; [`text`], [`directories`] and [`mod@write`]
//! are the files; [`generate`](mod@generate) makes the specifications of a node's GPUs. What is a valid
//! specification, which version it needs and what becomes of two that conflict is as in the library that containerd
//! uses (`tags.cncf.io/container-device-interface`, 1.1).
#![forbid(unsafe_code)]

#[cfg(feature = "files")]
pub mod directories;
#[cfg(feature = "generate")]
pub mod generate;
pub mod spec;
#[cfg(feature = "files")]
pub mod text;
#[cfg(feature = "files")]
pub mod write;

pub use spec::{ContainerEdits, Device, DeviceNode, Hook, Kind, Mount, QualifiedName, Spec, Version};
