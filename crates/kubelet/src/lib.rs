//! The gRPC interfaces that the kubelet has towards device plugins: `v1beta1` of the device-plugin API and `v1` of
//! pod-resources.
//!
//! With the feature `fake` also a kubelet for tests, on real unix sockets.
#![forbid(unsafe_code)]
