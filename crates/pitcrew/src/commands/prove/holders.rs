//! Pods that hold GPUs: the kubelet knows them also while no process of theirs runs.

use std::path::Path;

use pitcrew_agent::plugin::holders::{self, Books, Holding};
use pitcrew_cli::{GlobalArgs, ProveRunArgs};
use pitcrew_core::plugin::uuid_of;
use pitcrew_core::proof::{SetupError, SetupErrorCode};

use super::place;
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
    let Some(books) = ask(&global.root.join(beneath), &place::name(args, global)?)? else {
        return Ok(targets);
    };
    // Where GPUs are imaginary nobody is disturbed.
    if books.held.is_none() && args.scenario.is_some() {
        return Ok(targets);
    }
    let own = args.pod_name.as_deref().map(|name| Pod {
        namespace: args.pod_namespace.as_deref(),
        name,
    });
    Ok(judge(targets, &books, own))
}

/// The pod that this runs in, by what it was told alone: on the node itself, and with `hostNetwork`, the host's name is the
/// node's, which a pod of another namespace may have as well.
#[derive(Debug, Clone, Copy)]
struct Pod<'a> {
    /// Where it is known.
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Pod<'_> {
    /// True for the holder `namespace/name`.
    fn is(self, holder: &str) -> bool {
        holder.split_once('/').is_some_and(|(namespace, name)| {
            name == self.name && self.namespace.is_none_or(|own| own == namespace)
        })
    }
}

/// What pods hold; `None` where there is no kubelet.
fn ask(kubelet_dir: &Path, node: &str) -> Result<Option<Books>, Error> {
    let socket = holders::socket(kubelet_dir);
    match std::fs::symlink_metadata(&socket) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let runtime = agent::runtime()?;
    Ok(Some(runtime.block_on(holders::of(kubelet_dir, node))))
}

fn judge(targets: Vec<Target>, books: &Books, own: Option<Pod<'_>>) -> Vec<Target> {
    let judged = targets.into_iter().map(|mut target| {
        if target.setup_error.is_none() {
            target.setup_error = obstacle(&target, books, own);
        }
        target
    });
    judged.collect()
}

fn obstacle(target: &Target, books: &Books, own: Option<Pod<'_>>) -> Option<SetupError> {
    let title = target.device.title();
    let (message, fix) = match &books.held {
        None => {
            let why = books.failure.as_deref().unwrap_or("the kubelet does not say");
            let fix = "try it as root; if no pod holds it, test it with `--share`";
            (format!("whether a pod holds {title} can't be told: {why}"), fix)
        }
        Some(held) => {
            let mut others = held
                .iter()
                .filter(|holding| !own.is_some_and(|own| own.is(&holding.holder)));
            let is_its = |holding: &&Holding| {
                let uuid = uuid_of(&holding.id);
                uuid == target.device.uuid || uuid == target.gpu_uuid
            };
            if let Some(holding) = others.clone().find(is_its) {
                let fix = "delete the pod first, or test beside it with `--share`; its work gets slower then";
                (format!("the pod `{}` holds {title}", holding.holder), fix)
            } else {
                let holding = others.find(|holding| is_gpu(&holding.resource) && !has_uuid(&holding.id))?;
                let fix = "delete the pod first; if it does not hold it, test it with `--share`";
                let message = format!(
                    "whether a pod holds {title} can't be told: the pod `{}` holds `{}` of {}, which is no UUID",
                    holding.holder, holding.id, holding.resource
                );
                (message, fix)
            }
        }
    };
    Some(SetupError {
        code: SetupErrorCode::InUse,
        message,
        fix: Some(fix.to_owned()),
        cuda_error: None,
    })
}

/// True for resources that are GPUs of NVIDIA's, whole, shared or cut up, whoever advertises them. NVIDIA's network adapters
/// have the same domain.
fn is_gpu(resource: &str) -> bool {
    resource
        .strip_prefix("nvidia.com/")
        .is_some_and(|name| name.contains("gpu") || name.starts_with("mig-"))
}

/// True where an id says which GPU it is of: plugins that number GPUs (`nvidia0`), or make up names, don't.
fn has_uuid(id: &str) -> bool {
    let id = uuid_of(id);
    let uuid = id.strip_prefix("MIG-GPU-").map_or_else(
        || id.strip_prefix("GPU-").or_else(|| id.strip_prefix("MIG-")),
        // As drivers before R470 write it: the GPU's, and the numbers of both instances.
        |old| old.split_once('/').map(|(uuid, _)| uuid),
    );
    uuid.is_some_and(|uuid| {
        let groups = uuid.split('-').map(str::len);
        groups.eq([8, 4, 4, 4, 12])
            && uuid
                .chars()
                .all(|digit| digit == '-' || digit.is_ascii_hexdigit())
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
        refused_to(None, target, books)
    }

    fn refused_to(own: Option<Pod<'_>>, target: Target, books: &Books) -> Option<String> {
        let judged = judge(vec![target], books, own);
        judged[0].setup_error.as_ref().map(|error| error.message.clone())
    }

    const ONE: &str = "GPU-11111111-1111-1111-1111-111111111111";
    const TWO: &str = "GPU-22222222-2222-2222-2222-222222222222";
    const SLICE: &str = "MIG-11111111-1111-1111-1111-11111111111a";
    const OTHER: &str = "MIG-11111111-1111-1111-1111-11111111111b";

    #[test]
    fn what_a_pod_holds_is_refused_whole_or_in_part() {
        let replica = held(&format!("{ONE}::3"), "default/train");
        assert_eq!(
            refused(target(ONE, ONE), &replica).unwrap(),
            "the pod `default/train` holds GPU 0"
        );
        assert_eq!(refused(target(TWO, TWO), &replica), None);
        let slice = held(SLICE, "default/train");
        assert!(refused(target(SLICE, ONE), &slice).is_some());
        assert_eq!(refused(target(OTHER, ONE), &slice), None);
        assert!(refused(target(OTHER, ONE), &held(ONE, "default/train")).is_some());
    }

    #[test]
    fn a_pod_is_ones_own_by_what_one_was_told_and_never_by_the_hosts_name() {
        let pod = |namespace, name| Some(Pod { namespace, name });
        let books = held(ONE, "default/prove-me");
        let refused = |own| refused_to(own, target(ONE, ONE), &books).is_some();
        assert!(!refused(pod(Some("default"), "prove-me")));
        assert!(!refused(pod(None, "prove-me")));
        assert!(refused(pod(Some("other"), "prove-me")));
        assert!(refused(pod(Some("default"), "prove")));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let books = held(ONE, &format!("default/{host}"));
        assert!(refused_to(None, target(ONE, ONE), &books).is_some());
    }

    #[test]
    fn of_an_id_that_is_no_uuid_nobody_can_tell_which_gpu_it_is() {
        let numbered = held("nvidia0", "default/train");
        assert_eq!(
            refused(target(ONE, ONE), &numbered).unwrap(),
            "whether a pod holds GPU 0 can't be told: the pod `default/train` holds `nvidia0` of nvidia.com/gpu, which is \
             no UUID"
        );
        let own = Pod {
            namespace: Some("default"),
            name: "train",
        };
        assert_eq!(refused_to(Some(own), target(ONE, ONE), &numbered), None);
        for id in ["0000:01:00.0", "GPU-0", &format!("{ONE}-7"), "MIG-", ""] {
            assert!(
                refused(target(TWO, TWO), &held(id, "default/train")).is_some(),
                "{id}"
            );
        }
        for id in [ONE, &format!("{ONE}::1-of-4"), SLICE, &format!("MIG-{ONE}/1/0")] {
            assert_eq!(
                refused(target(TWO, TWO), &held(id, "default/train")),
                None,
                "{id}"
            );
        }
        for resource in ["nvidia.com/hostdev", "amd.com/gpu", "example.com/fpga"] {
            let mut books = numbered.clone();
            books.held.as_mut().unwrap()[0].resource = resource.to_owned();
            assert_eq!(refused(target(ONE, ONE), &books), None, "{resource}");
        }
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
