//! Whether what is held may be held together.

use std::collections::BTreeMap;

/// A device that a container holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// The device's id.
    pub id: String,
    /// True for an init container, whose devices go on to the containers after it.
    pub passes_on: bool,
}

/// What of a GPU a device is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// All of it: nobody else may have any.
    Whole,
    /// A part or a turn. Others may have more of the same kind, e.g. `mig` or `time-slicing`, and none of another.
    Part(String),
}

/// What is held and may not be: one id twice, or one GPU in forms that exclude each other. Each in words; nothing is
/// well.
///
/// `form` says which GPU a device is of, and what of it; `None` for devices that are no GPUs.
pub fn conflicts(held: &[Held], form: impl Fn(&Held) -> Option<(String, Form)>) -> Vec<String> {
    let mut conflicts = Vec::new();
    let mut ids: BTreeMap<(&str, &str), &Held> = BTreeMap::new();
    let mut gpus: BTreeMap<String, (Form, &Held)> = BTreeMap::new();
    for one in held {
        let key = (one.resource.as_str(), one.id.as_str());
        match ids.get(&key) {
            Some(other) if !share(one, other) => conflicts.push(format!(
                "{} of {} is held by {} and by {}",
                one.id,
                one.resource,
                place(other),
                place(one)
            )),
            _ => {
                ids.insert(key, one);
            }
        }
        let Some((gpu, form)) = form(one) else {
            continue;
        };
        match gpus.get(&gpu) {
            Some((other_form, other)) if !share(one, other) && !together(&form, other_form) => {
                conflicts.push(format!(
                    "{gpu} is held as {} ({other_form:?}) by {} and as {} ({form:?}) by {}",
                    other.id,
                    place(other),
                    one.id,
                    place(one)
                ));
            }
            _ => {
                gpus.insert(gpu, (form, one));
            }
        }
    }
    conflicts
}

/// True for one device in the hands of an init container and of a later container of the same pod.
fn share(one: &Held, other: &Held) -> bool {
    let pod = |held: &Held| (held.namespace.clone(), held.pod.clone());
    pod(one) == pod(other) && (one.passes_on || other.passes_on)
}

fn together(one: &Form, other: &Form) -> bool {
    *one != Form::Whole && one == other
}

fn place(held: &Held) -> String {
    format!("{}/{} ({})", held.namespace, held.pod, held.container)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pod: &str, id: &str) -> Held {
        Held {
            namespace: "default".to_owned(),
            pod: pod.to_owned(),
            container: "main".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
            id: id.to_owned(),
            passes_on: false,
        }
    }

    fn form(held: &Held) -> Option<(String, Form)> {
        let form = match held.id.split_once("::") {
            Some((gpu, _)) => (gpu.to_owned(), Form::Part("time-slicing".to_owned())),
            None => (held.id.clone(), Form::Whole),
        };
        (held.resource == "nvidia.com/gpu").then_some(form)
    }

    #[test]
    fn one_id_in_two_pods_is_a_conflict() {
        let found = conflicts(&[held("a", "GPU-1::0"), held("b", "GPU-1::0")], form);
        assert_eq!(
            found,
            ["GPU-1::0 of nvidia.com/gpu is held by default/a (main) and by default/b (main)"]
        );
    }

    #[test]
    fn a_whole_gpu_and_a_slice_of_it_are_a_conflict_in_either_order() {
        let (whole, slice) = (held("a", "GPU-1"), held("b", "GPU-1::0"));
        assert_eq!(conflicts(&[whole.clone(), slice.clone()], form).len(), 1);
        assert_eq!(conflicts(&[slice, whole], form).len(), 1);
    }

    #[test]
    fn slices_of_one_gpu_go_together() {
        let found = conflicts(&[held("a", "GPU-1::0"), held("b", "GPU-1::1")], form);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn an_init_container_and_its_successor_may_have_the_same_device() {
        let mut init = held("a", "GPU-1");
        init.container = "init".to_owned();
        init.passes_on = true;
        assert_eq!(
            conflicts(&[init.clone(), held("a", "GPU-1")], form),
            Vec::<String>::new()
        );
        assert_eq!(conflicts(&[init, held("b", "GPU-1")], form).len(), 2);
    }
}
