//! The device plugin: resources of this node on the sockets of the kubelet.
