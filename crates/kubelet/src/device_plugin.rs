//! The device-plugin API, version `v1beta1`: the kubelet serves [`Registration`], a plugin serves [`DevicePlugin`].

pub use crate::generated::device_plugin::device_plugin_client::DevicePluginClient;
pub use crate::generated::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
pub use crate::generated::device_plugin::registration_client::RegistrationClient;
pub use crate::generated::device_plugin::registration_server::{Registration, RegistrationServer};
pub use crate::generated::device_plugin::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, ContainerPreferredAllocationResponse, Device, DevicePluginOptions,
    DeviceSpec, Empty, ListAndWatchResponse, Mount, NumaNode, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
    TopologyInfo,
};

/// The version of the API, as a plugin says it when it registers.
pub const VERSION: &str = "v1beta1";
/// [`Device::health`] of a device that may be handed out.
pub const HEALTHY: &str = "Healthy";
/// [`Device::health`] of a device that may not.
pub const UNHEALTHY: &str = "Unhealthy";
/// Directory of the sockets, in the kubelet's directory.
pub const DIR: &str = "device-plugins";
/// File name of the kubelet's socket in [`DIR`].
pub const SOCKET: &str = "kubelet.sock";
