//! What is wrong with the driver, and what to do.

use pitcrew_core::ports::GpuError;

use crate::snapshot::Problem;

/// What lets go of a driver in which a call hangs: a process can't end a thread of its own there, nor close what that
/// thread works on.
const RESTART: &str = "look at `dmesg | grep -e NVRM -e nvidia`; the agent must be restarted to let go of the driver: \
                       `kubectl delete pod -A -l app.kubernetes.io/name=pitcrew,app.kubernetes.io/component=agent \
                       --field-selector spec.nodeName=NODE`; if the process doesn't end, reboot the node";

pub(super) fn driver_problem(error: &GpuError) -> Problem {
    let (reason, hint) = match error {
        GpuError::NoDriver(_) => ("DriverNotFound", "`pitcrew check` on the node says what it lacks"),
        GpuError::DriverSilent(_) => ("DriverSilent", RESTART),
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

pub(super) fn released_problem(why: &str, held: Option<&str>) -> Problem {
    let Some(held) = held else {
        return Problem {
            reason: "Paused".to_owned(),
            message: format!("the driver was let go of: {why}"),
            hint: "nothing to do: its GPUs come back when the label is taken away".to_owned(),
        };
    };
    Problem {
        reason: "DriverHeld".to_owned(),
        message: format!("the driver can't be let go of, though {why}: {held}"),
        hint: RESTART.to_owned(),
    }
}
