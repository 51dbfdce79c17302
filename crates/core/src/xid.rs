//! XIDs: the error numbers that the driver writes to the kernel log and reports as events.
//!
//! Source: NVIDIA's public XID catalogue, in our own words; only numbers whose meaning is documented there. Which of
//! them NVIDIA's device plugin passes over is in fact sheet `devices`, section 1.7.

use serde::Serialize;

/// Whose fault an XID usually is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The program on the GPU did something wrong. The card is fine.
    Application,
    /// The card noted a fault and works on; it needs a reset when its work allows.
    Contained,
    /// The driver or the GPU's firmware is in trouble; the GPU can't be trusted until it is reset.
    Gpu,
    /// The hardware may be broken.
    Hardware,
}

/// What to do about an XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Fix or restart the program.
    RestartApplication,
    /// Reset the GPU once its pods are gone.
    ResetGpu,
    /// Reboot the node.
    RebootNode,
    /// Look at `NVLink` and the Fabric Manager.
    CheckFabric,
    /// Look at cables, slot and power; then replace the board.
    CheckHardware,
}

impl Action {
    /// The action in words.
    pub fn advice(self) -> &'static str {
        match self {
            Self::RestartApplication => "Restart the program; the card is fine",
            Self::ResetGpu => "Drain the GPU's pods and reset the GPU",
            Self::RebootNode => "Drain the node and reboot it",
            Self::CheckFabric => {
                "Look at `nvidia-smi nvlink -e` and the Fabric Manager's log, then reset the GPUs"
            }
            Self::CheckHardware => {
                "Reboot the node; if it comes back, check power and seating, then replace the board"
            }
        }
    }
}

/// One XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// Its number.
    pub number: u32,
    /// What it means.
    pub name: &'static str,
    /// Whose fault it usually is.
    pub severity: Severity,
    /// What to do.
    pub action: Action,
}

impl Xid {
    /// True for those that NVIDIA's device plugin does not take for a sick GPU.
    pub fn ignored_by_reference(&self) -> bool {
        matches!(self.number, 13 | 31 | 43 | 45 | 68 | 109)
    }
}

/// What is known of an XID.
pub fn lookup(number: u32) -> Option<&'static Xid> {
    TABLE.iter().find(|xid| xid.number == number)
}

const fn xid(number: u32, name: &'static str, severity: Severity, action: Action) -> Xid {
    Xid {
        number,
        name,
        severity,
        action,
    }
}

use Action::{CheckFabric, CheckHardware, RebootNode, ResetGpu, RestartApplication};
use Severity::{Application, Contained, Gpu, Hardware};

const TABLE: &[Xid] = &[
    xid(
        13,
        "an exception in a kernel, such as an illegal instruction or address",
        Application,
        RestartApplication,
    ),
    xid(
        31,
        "a kernel touched memory that isn't mapped",
        Application,
        RestartApplication,
    ),
    xid(32, "a corrupted command stream", Gpu, ResetGpu),
    xid(38, "the driver's firmware reported an error", Gpu, ResetGpu),
    xid(
        43,
        "a program's work was stopped after an error",
        Application,
        RestartApplication,
    ),
    xid(
        45,
        "a program's channels were torn down, as when it is killed",
        Application,
        RestartApplication,
    ),
    xid(
        48,
        "a double-bit memory error that ECC could not correct",
        Gpu,
        ResetGpu,
    ),
    xid(54, "auxiliary power isn't connected", Hardware, CheckHardware),
    xid(61, "the GPU's microcontroller hit a breakpoint", Gpu, ResetGpu),
    xid(62, "the GPU's microcontroller halted", Gpu, ResetGpu),
    xid(
        63,
        "a memory row or page was recorded for replacement",
        Contained,
        ResetGpu,
    ),
    xid(
        64,
        "recording a bad memory row or page failed",
        Hardware,
        CheckHardware,
    ),
    xid(
        68,
        "an exception in the video decoder",
        Application,
        RestartApplication,
    ),
    xid(
        69,
        "an exception in the graphics engine",
        Application,
        RestartApplication,
    ),
    xid(74, "an NVLink error", Gpu, CheckFabric),
    xid(79, "the GPU has fallen off the bus", Hardware, CheckHardware),
    xid(92, "many single-bit memory errors", Contained, ResetGpu),
    xid(
        94,
        "an uncorrected memory error that was contained to one program",
        Contained,
        ResetGpu,
    ),
    xid(
        95,
        "an uncorrected memory error that was not contained",
        Gpu,
        ResetGpu,
    ),
    xid(
        109,
        "a program's context switch timed out",
        Application,
        RestartApplication,
    ),
    xid(
        119,
        "the GPU's system processor (GSP) did not answer in time",
        Gpu,
        ResetGpu,
    ),
    xid(120, "the GPU's system processor (GSP) crashed", Gpu, ResetGpu),
    xid(
        121,
        "an error on the link between CPU and GPU (C2C)",
        Gpu,
        ResetGpu,
    ),
    xid(140, "an uncorrected ECC error outside memory", Gpu, ResetGpu),
    xid(143, "the GPU could not be initialised", Gpu, ResetGpu),
    xid(
        154,
        "the driver says which recovery the GPU needs",
        Gpu,
        RebootNode,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_twins() {
        assert!(TABLE.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn what_the_reference_ignores_is_the_applications_fault() {
        let ignored: Vec<u32> = TABLE
            .iter()
            .filter(|xid| xid.ignored_by_reference())
            .map(|xid| xid.number)
            .collect();
        assert_eq!(ignored, [13, 31, 43, 45, 68, 109]);
        assert!(
            ignored
                .iter()
                .all(|&number| lookup(number).unwrap().severity == Application)
        );
        assert_eq!(lookup(79).unwrap().action, CheckHardware);
        assert_eq!(lookup(9999), None);
    }
}
