//! Pods: a whole GPU, a time-slice, a MIG slice.

use std::fmt;
use std::time::Duration;

use pitcrew_core::health::{self, Verdict};
use pitcrew_core::ports::{InventorySource as _, Mig as _};
use pitcrew_core::{Gpu, Inventory};

use super::{Failure, Mark, Story};

/// The resource of whole GPUs.
const GPU: &str = "nvidia.com/gpu";
/// Into how many a GPU is sliced.
const REPLICAS: usize = 4;

/// How long a pod goes on after something was changed around it: long enough for the agent to find it in the kubelet's
/// books. Of one that is gone before, it knows only that it was about to start, and waits for it.
const WORK: Duration = Duration::from_millis(500);

/// Devices of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// That the kubelet knows.
    known: usize,
    /// That it may hand out.
    healthy: usize,
}

impl Counts {
    fn sliced(self) -> Self {
        Self {
            known: self.known * REPLICAS,
            healthy: self.healthy * REPLICAS,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.known)?;
        if self.healthy < self.known {
            write!(f, ", and may hand out {} of them", self.healthy)?;
        }
        Ok(())
    }
}

/// A configuration of NVIDIA's device plugin.
fn configuration(mig_strategy: &str, replicas: usize) -> String {
    let sharing = if replicas > 1 {
        format!("sharing:\n  timeSlicing:\n    resources:\n    - name: {GPU}\n      replicas: {replicas}\n")
    } else {
        String::new()
    };
    format!("version: v1\nflags:\n  migStrategy: {mig_strategy}\n{sharing}")
}

impl Story<'_> {
    pub(super) async fn pods(&mut self) -> Result<(), Failure> {
        self.chapter("three pods");
        let whole = self.whole()?;
        if whole.healthy == 0 {
            self.line(
                Mark::Skipped,
                "pod",
                format!("no pod can ask for {GPU} here"),
                Vec::new(),
            );
        } else {
            self.counted(GPU, whole).await?;
            self.whole_and_slice(whole).await?;
        }
        self.mig_slice(whole).await
    }

    /// What the kubelet should know of whole GPUs: all that it knows, and may hand out those that are well and not cut.
    fn whole(&self) -> Result<Counts, Failure> {
        let inventory = self.node.machine().clone().inventory();
        let inventory = inventory.map_err(|error| Self::failed("asking the driver", error))?;
        let is_whole = |gpu: &&Gpu| {
            let mode = gpu.readings.mig_mode.value();
            mode.is_none_or(|mode| !mode.current) && health::assess(gpu).verdict != Verdict::Unhealthy
        };
        Ok(Counts {
            known: self.node.resources().get(GPU).map_or(0, Vec::len),
            healthy: inventory.gpus.iter().filter(is_whole).count(),
        })
    }

    /// Runs a pod that asks for one device, and shows what it got.
    async fn pod(&mut self, name: &str, resource: &str) -> Result<(), Failure> {
        let what = format!("pod {name} getting {resource}");
        let pod = self.until(&what, async |node| {
            let pod = node.admit(name, &[(resource, 1)]).await;
            pod.map_err(|error| error.to_string())
        });
        let pod = pod.await?;
        let given = pod.given.clone();
        if !given.unresolved.is_empty() {
            let names = given.unresolved.join(" ");
            return Err(Self::failed(&what, format!("no specification has {names}")));
        }
        if !given.missing.is_empty() {
            return Err(Self::failed(&what, given.missing.join("; ")));
        }
        let expected = self.node.nodes_of(&given.ids);
        let own: Vec<&str> = given.own_nodes().collect();
        if own != expected {
            return Err(Self::failed(
                &what,
                format!("it sees {own:?} and should see {expected:?}"),
            ));
        }
        let mut details = vec![format!("device  {}", given.ids.join(" "))];
        if !given.cdi.is_empty() {
            let names: Vec<&str> = given.cdi.iter().map(String::as_str).collect();
            details.push(format!("CDI     {}", names.join(" ")));
        }
        let nodes: Vec<&str> = given.nodes.iter().map(String::as_str).collect();
        details.push(format!("nodes   {}", nodes.join(" ")));
        self.seen("pod", format!("{name} asked for {resource}: 1 and sees"), details);
        Ok(())
    }

    async fn end(&mut self, name: &str) {
        tokio::time::sleep(WORK).await;
        self.hear();
        self.node.remove(name);
        self.done("pod", format!("{name} ends"));
    }

    fn configure(&mut self, text: &str, what: &str) -> Result<(), Failure> {
        self.done("config", what);
        let written = self.node.configure(text);
        written.map_err(|error| Self::failed("writing the configuration", error))
    }

    /// Waits until the kubelet knows so many devices of a resource, and may hand out so many of them.
    async fn counted(&mut self, resource: &str, wanted: Counts) -> Result<(), Failure> {
        self.until(
            &format!("the kubelet knowing {resource}: {wanted}"),
            async |node| {
                let resources = node.resources();
                let devices = resources.get(resource).map_or(&[][..], Vec::as_slice);
                let known = Counts {
                    known: devices.len(),
                    healthy: devices.iter().filter(|device| device.healthy).count(),
                };
                if known == wanted {
                    Ok(())
                } else {
                    Err(format!("it knows {known}"))
                }
            },
        )
        .await?;
        self.seen("kubelet", format!("knows {resource}: {wanted}"), Vec::new());
        Ok(())
    }

    /// A pod with a whole GPU, and one with a slice. Sharing is switched while they run: what they hold is not handed out
    /// in another form before they end.
    async fn whole_and_slice(&mut self, whole: Counts) -> Result<(), Failure> {
        let without_one = Counts {
            healthy: whole.healthy - 1,
            ..whole
        };
        self.pod("one-gpu", GPU).await?;
        let on = format!("time-slicing is switched on, {REPLICAS} for each GPU, while one-gpu runs");
        self.configure(&configuration("none", REPLICAS), &on)?;
        self.counted(GPU, without_one.sliced()).await?;
        self.end("one-gpu").await;
        self.counted(GPU, whole.sliced()).await?;
        self.pod("time-slice", GPU).await?;
        self.configure(
            &configuration("none", 1),
            "time-slicing is switched off while time-slice runs",
        )?;
        self.counted(GPU, without_one).await?;
        self.end("time-slice").await;
        self.counted(GPU, whole).await
    }

    /// Cuts the first GPU that can be cut, unless one is cut already.
    async fn mig_slice(&mut self, whole: Counts) -> Result<(), Failure> {
        let what = "cutting a GPU";
        let mut machine = self.node.machine().clone();
        let before = machine.inventory().map_err(|error| Self::failed(what, error))?;
        let cut_already = slices(&before);
        let mut undo = None;
        if cut_already == 0 {
            let mut refusal = None;
            let found = before.gpus.iter().find_map(|gpu| {
                let uuid = gpu.readings.uuid.value()?.clone();
                match machine.profiles(&uuid) {
                    Ok(profiles) => Some((uuid, profiles.into_iter().next()?)),
                    Err(error) => {
                        refusal.get_or_insert(error);
                        None
                    }
                }
            });
            let Some((uuid, profile)) = found else {
                let why = refusal.map_or_else(|| "no GPU answers".to_owned(), |error| error.to_string());
                let text = format!("no pod gets a MIG slice here: {why}");
                self.line(Mark::Skipped, "mig", text, Vec::new());
                return Ok(());
            };
            let cut = |machine: &mut pitcrew_scenario::Machine| {
                machine.set_mode(&uuid, true)?;
                apply_mode(machine, &uuid, true)?;
                machine.create(&uuid, &profile.profile, None)
            };
            let device = cut(&mut machine).map_err(|error| Self::failed(what, error))?;
            let name = profile.profile.to_string();
            self.done("mig", format!("{uuid} is cut: one {name}"));
            undo = Some((uuid, device.gpu_instance));
        }
        let after = machine.inventory().map_err(|error| Self::failed(what, error))?;
        self.configure(&configuration("mixed", 1), "the MIG strategy is set to mixed")?;
        let total = slices(&after);
        let resource = self
            .until(&format!("{total} MIG slices at the kubelet"), async |node| {
                let resources = node.resources();
                let of_mig = resources.iter().filter(|(name, _)| name.contains("/mig-"));
                let known: usize = of_mig.clone().map(|(_, devices)| devices.len()).sum();
                match of_mig.map(|(name, _)| name.clone()).next() {
                    Some(name) if known == total => Ok(name),
                    _ => Err(format!("the kubelet knows {known}")),
                }
            })
            .await?;
        self.seen("kubelet", format!("knows {resource}"), Vec::new());
        self.pod("mig-slice", &resource).await?;
        self.configure(
            &configuration("none", 1),
            "the MIG strategy is set back to none while mig-slice runs",
        )?;
        self.end("mig-slice").await;
        if let Some((uuid, gpu_instance)) = undo {
            let mut mend = || {
                machine.destroy(&uuid, gpu_instance)?;
                machine.set_mode(&uuid, false)?;
                apply_mode(&mut machine, &uuid, false)
            };
            mend().map_err(|error| Self::failed("making the GPU whole again", error))?;
            self.done("mig", format!("{uuid} is made whole again"));
        }
        self.counted(GPU, whole).await
    }
}

/// Resets the GPU where its mode waits for that.
fn apply_mode(
    machine: &mut pitcrew_scenario::Machine,
    uuid: &str,
    wanted: bool,
) -> Result<(), pitcrew_core::ports::GpuError> {
    let inventory = machine.inventory()?;
    let is_pending = inventory
        .gpus
        .iter()
        .filter(|gpu| gpu.readings.uuid.value().is_some_and(|known| known == uuid))
        .filter_map(|gpu| gpu.readings.mig_mode.value())
        .any(|mode| mode.current != wanted);
    if is_pending { machine.reset(uuid) } else { Ok(()) }
}

/// MIG devices that there are.
fn slices(inventory: &Inventory) -> usize {
    let gpus = inventory.gpus.iter();
    gpus.filter_map(|gpu| gpu.readings.mig_devices.value())
        .map(Vec::len)
        .sum()
}
