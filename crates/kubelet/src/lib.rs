//! The gRPC interfaces that the kubelet has towards device plugins: `v1beta1` of the device-plugin API
//! ([`device_plugin`]) and `v1` of pod-resources ([`pod_resources`]), and the unix sockets that both run on
//! ([`connect`], [`Socket`]).
//!
//! With the feature `fake` also a kubelet for tests, on real unix sockets; with `contract` what it and a real one both
//! do.
#![forbid(unsafe_code)]

#[cfg(feature = "contract")]
pub mod contract;
pub mod device_plugin;
#[cfg(feature = "fake")]
pub mod fake;
pub mod pod_resources;
mod socket;

pub use socket::{MAX_PATH, Socket, SocketError, SocketFile, connect};

/// Client and server code as it is generated.
mod generated {
    #[rustfmt::skip]
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::pedantic,
        reason = "generated: its texts and its style are the generator's"
    )]
    pub(crate) mod device_plugin;
    #[rustfmt::skip]
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::pedantic,
        reason = "generated: its texts and its style are the generator's"
    )]
    pub(crate) mod pod_resources;
}
