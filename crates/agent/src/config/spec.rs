//! What the node's `GpuNode` wants, and can't have.

use crate::snapshot::Problem;

/// It names a configuration, and there is none that has a name.
pub(super) fn nothing_to_choose(name: &str, source: &str, node: &str) -> Problem {
    Problem {
        reason: "ConfigUnknown".to_owned(),
        message: format!(
            "GpuNode `{node}` names configuration `{name}`, and the agent was given none with names: it has {source}"
        ),
        hint: format!(
            "give the agent a ConfigMap or a directory of configurations (`--config-map`, `--config`), or take the name \
             away: `kubectl patch gpunode {node} --type=merge -p '{{\"spec\":{{\"config\":null}}}}'`"
        ),
    }
}

/// How to correct a configuration in the object.
pub(super) fn correct(node: &str) -> String {
    format!("correct it: `kubectl edit gpunode {node}`; it is read again as soon as it changes")
}
