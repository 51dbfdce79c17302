//! `NVLinks` as a report has them.

use serde::{Deserialize, Serialize};

use crate::nvlink::NvLink;

/// One `NVLink` at one moment. What is absent this GPU doesn't count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Its number on this GPU.
    pub index: u32,
    /// True when it is up.
    pub up: bool,
    /// What it was trained to, one way, in MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbs: Option<u64>,
    /// Flits that arrived with a wrong checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc_flit: Option<u64>,
    /// Data that arrived with a wrong checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc_data: Option<u64>,
    /// Packets sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<u64>,
    /// Times that it was brought up anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoveries: Option<u64>,
}

impl LinkState {
    /// All that was counted; none where nothing is.
    pub fn errors(&self) -> Option<u64> {
        let counted = [self.crc_flit, self.crc_data, self.replays, self.recoveries];
        counted.into_iter().flatten().reduce(u64::saturating_add)
    }
}

impl From<&NvLink> for LinkState {
    fn from(link: &NvLink) -> Self {
        Self {
            index: link.index,
            up: link.is_up,
            speed_mbs: link.speed_mbs.value().copied(),
            crc_flit: link.crc_flit.value().copied(),
            crc_data: link.crc_data.value().copied(),
            replays: link.replays.value().copied(),
            recoveries: link.recoveries.value().copied(),
        }
    }
}
