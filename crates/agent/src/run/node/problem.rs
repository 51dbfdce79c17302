//! What is wrong with the driver, and what to do.

use pitcrew_core::ports::GpuError;

use crate::snapshot::Problem;

pub(super) fn driver_problem(error: &GpuError) -> Problem {
    let (reason, hint) = match error {
        GpuError::NoDriver(_) => ("DriverNotFound", "`pitcrew check` on the node says what it lacks"),
        GpuError::Silent { .. } => (
            "GpuSilent",
            "look at `dmesg | grep -e NVRM -e nvidia`; drain the node and reboot it",
        ),
        GpuError::GpuLost(_) => (
            "GpuLost",
            "drain the node and reboot it; if the GPU is lost again, reseat or replace the board",
        ),
        _ => (
            "DriverFailed",
            "look at `dmesg | grep -e NVRM -e nvidia`; where the driver was replaced, reboot the node",
        ),
    };
    Problem {
        reason: reason.to_owned(),
        message: error.to_string(),
        hint: hint.to_owned(),
    }
}

pub(super) fn released_problem(why: &str, is_free: bool) -> Problem {
    if is_free {
        return Problem {
            reason: "Paused".to_owned(),
            message: format!("the driver was let go of: {why}"),
            hint: "nothing to do: its GPUs come back when the label is taken away".to_owned(),
        };
    }
    Problem {
        reason: "DriverHeld".to_owned(),
        message: format!("the driver could not be let go of, as a call of it has not returned: {why}"),
        hint: "end the agent's pod, or reboot the node".to_owned(),
    }
}
