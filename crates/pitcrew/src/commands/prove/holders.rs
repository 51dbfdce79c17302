//! Pods that hold GPUs: the kubelet knows them also while no process of theirs runs.

use std::path::Path;

use pitcrew_agent::plugin::holders::{self, Books, Holding};
use pitcrew_cli::{GlobalArgs, ProveRunArgs};
use pitcrew_core::plugin::uuid_of;
use pitcrew_core::proof::{SetupError, SetupErrorCode};

use super::rack::Target;
use crate::commands::agent;
use crate::error::Error;

/// Refuses targets that a pod holds, and all where the kubelet doesn't say. A pod that proves its own GPU is no obstacle.
pub(super) fn refuse(
    targets: Vec<Target>,
    args: &ProveRunArgs,
    global: &GlobalArgs,
) -> Result<Vec<Target>, Error> {
    if args.share {
        return Ok(targets);
    }
    let beneath = args.kubelet_dir.strip_prefix("/").unwrap_or(&args.kubelet_dir);
    let node = match &args.node {
        Some(node) => node.clone(),
        None => agent::host_name(&global.root)?,
    };
    let Some(books) = ask(&global.root.join(beneath), &node)? else {
        return Ok(targets);
    };
    // Where GPUs are imaginary nobody is disturbed.
    if books.held.is_none() && args.scenario.is_some() {
        return Ok(targets);
    }
    let own = match &args.pod_name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    Ok(judge(targets, &books, &own))
}

/// What pods hold; `None` where there is no kubelet.
fn ask(kubelet_dir: &Path, node: &str) -> Result<Option<Books>, Error> {
    let socket = holders::socket(kubelet_dir);
    match std::fs::symlink_metadata(&socket) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::NoThread)?;
    Ok(Some(runtime.block_on(holders::of(kubelet_dir, node))))
}

fn judge(targets: Vec<Target>, books: &Books, own: &str) -> Vec<Target> {
    let judged = targets.into_iter().map(|mut target| {
        if target.setup_error.is_none() {
            target.setup_error = obstacle(&target, books, own);
        }
        target
    });
    judged.collect()
}

fn obstacle(target: &Target, books: &Books, own: &str) -> Option<SetupError> {
    let title = target.device.title();
    let (message, fix) = match &books.held {
        None => {
            let why = books.failure.as_deref().unwrap_or("the kubelet does not say");
            let fix = "try it as root; if no pod holds it, test it with `--share`";
            (format!("whether a pod holds {title} can't be told: {why}"), fix)
        }
        Some(held) => {
            let is_its = |holding: &&Holding| {
                let uuid = uuid_of(&holding.id);
                let by_own = holding.holder.split_once('/').is_some_and(|(_, pod)| pod == own);
                (uuid == target.device.uuid || uuid == target.gpu_uuid) && !by_own
            };
            let holding = held.iter().find(is_its)?;
            let fix = "delete the pod first, or test beside it with `--share`; its work gets slower then";
            (format!("the pod `{}` holds {title}", holding.holder), fix)
        }
    };
    Some(SetupError {
        code: SetupErrorCode::InUse,
        message,
        fix: Some(fix.to_owned()),
        cuda_error: None,
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_core::proof::Device;

    use super::*;

    fn target(uuid: &str, gpu: &str) -> Target {
        Target {
            device: Device {
                uuid: uuid.to_owned(),
                ..Device::default()
            },
            gpu_uuid: gpu.to_owned(),
            processes: Vec::new(),
            setup_error: None,
            unread: Vec::new(),
            is_named: false,
        }
    }

    fn held(id: &str, holder: &str) -> Books {
        let holding = Holding {
            resource: "nvidia.com/gpu".to_owned(),
            id: id.to_owned(),
            holder: holder.to_owned(),
        };
        Books {
            held: Some(vec![holding]),
            failure: None,
        }
    }

    fn refused(target: Target, books: &Books) -> Option<String> {
        let judged = judge(vec![target], books, "prove-me");
        judged[0].setup_error.as_ref().map(|error| error.message.clone())
    }

    #[test]
    fn what_a_pod_holds_is_refused_whole_or_in_part_and_its_own_gpu_is_not() {
        let replica = held("GPU-1::3", "default/train");
        assert_eq!(
            refused(target("GPU-1", "GPU-1"), &replica).unwrap(),
            "the pod `default/train` holds GPU 0"
        );
        assert_eq!(refused(target("GPU-2", "GPU-2"), &replica), None);
        let slice = held("MIG-1", "default/train");
        assert!(refused(target("MIG-1", "GPU-1"), &slice).is_some());
        assert_eq!(refused(target("MIG-2", "GPU-1"), &slice), None);
        assert!(refused(target("MIG-2", "GPU-1"), &held("GPU-1", "default/train")).is_some());
        assert_eq!(
            refused(target("GPU-1", "GPU-1"), &held("GPU-1", "default/prove-me")),
            None
        );
    }

    #[test]
    fn a_kubelet_that_does_not_answer_is_no_free_pass() {
        let books = Books {
            held: None,
            failure: Some("permission denied".to_owned()),
        };
        assert_eq!(
            refused(target("GPU-1", "GPU-1"), &books).unwrap(),
            "whether a pod holds GPU 0 can't be told: permission denied"
        );
    }
}
