//! Tests that drive built artefacts on real parts: containerd and runc (ring 3), a real Kubernetes (ring 4), a real
//! GPU (ring 5). They live in `tests/`, one file per ring and topic; the file's name starts with its ring.
