//! Copies by the copy engines.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use super::gpu::Gpu;
use super::launch::{at_least, unsupported};
use super::library::Raw;
use crate::device::{DeviceError, Work};

impl Gpu {
    /// Queues a copy between host and device, or to a peer.
    pub(super) fn queue_copy(&self, stream: Raw, work: &Work) -> Result<(), DeviceError> {
        let name = work.name();
        match *work {
            Work::ToDevice { from, to } => {
                let source = self.host_address(from, to.bytes)?;
                let to_address = self.address(to)?;
                let bytes = usize::try_from(to.bytes).unwrap_or(usize::MAX);
                // SAFETY: both are that long, and pinned memory is not given back while work is under way.
                let code = unsafe {
                    (self.library.functions.copy_to_device)(to_address, source.cast(), bytes, stream)
                };
                self.check(name, code)
            }
            Work::ToHost { from, to } => {
                let target = self.host_address(to, from.bytes)?;
                let from_address = self.address(from)?;
                let bytes = usize::try_from(from.bytes).unwrap_or(usize::MAX);
                // SAFETY: as above.
                let code = unsafe {
                    (self.library.functions.copy_to_host)(target.cast(), from_address, bytes, stream)
                };
                self.check(name, code)
            }
            Work::ToPeer { from, to, peer } => {
                at_least(to, from.bytes, "a copy")?;
                let (own, other) = self.peer(peer)?;
                let from_address = self.address(from)?;
                let bytes = usize::try_from(from.bytes).unwrap_or(usize::MAX);
                // SAFETY: both contexts are retained; what lies where on the other GPU its owner says.
                let code = unsafe {
                    (self.library.functions.copy_to_peer)(
                        to.block.id + to.offset,
                        other,
                        from_address,
                        own,
                        bytes,
                        stream,
                    )
                };
                self.check(name, code)
            }
            Work::FromPeer { from, to, peer } => {
                at_least(to, from.bytes, "a copy")?;
                let (own, other) = self.peer(peer)?;
                let to_address = self.address(to)?;
                let bytes = usize::try_from(from.bytes).unwrap_or(usize::MAX);
                // SAFETY: as above.
                let code = unsafe {
                    (self.library.functions.copy_to_peer)(
                        to_address,
                        own,
                        from.block.id + from.offset,
                        other,
                        bytes,
                        stream,
                    )
                };
                self.check(name, code)
            }
            _ => Err(unsupported(format!("`{name}` is no copy"))),
        }
    }
}
