//! A device plugin on the test bed's kubelet, measured: time until the kubelet has the GPUs to give, how long answers take
//! with 8 GPUs of 10 shares, resident memory, CPU at rest. Ours, or any other beside it on the same imaginary GPUs:
//!
//! `plugin_bench [--seconds N] ours|SOCKET-NAME PROGRAM [ARGUMENT...]`
//!
//! The test bed must be up, and the `PITCREW_*` variables name what was built, as for the tests. The configuration is
//! given to the program as `CONFIG_FILE`.
#![expect(clippy::print_stdout, reason = "figures")]

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use pitcrew_kubelet::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, DevicePluginClient,
    Empty, PreferredAllocationRequest,
};
use pitcrew_tests::agent::{Agent, Gpus, PodResources};
use pitcrew_tests::{kubelet_dir, on_node};

const GPUS: usize = 8;
const SHARES: usize = 10;
const CALLS: usize = 2000;
const CONFIG: &str = "/etc/plugin-bench.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut seconds = 30;
    if words.first().is_some_and(|word| word == "--seconds") {
        seconds = words.get(1).ok_or("--seconds needs a number")?.parse()?;
        words.drain(..2);
    }
    let [plugin, program, arguments @ ..] = words.as_slice() else {
        return Err("usage: plugin_bench [--seconds N] ours|SOCKET-NAME PROGRAM [ARGUMENT...]".into());
    };
    let (program, arguments) = (Path::new(program), arguments.iter().map(String::as_str));
    let gpus = Gpus::new("h100x8");
    let kubelet = PodResources::new();
    let start = |replicas: usize| -> (Agent, Duration) {
        let config = format!(
            "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
        );
        let config = if replicas == 1 {
            "version: v1\n".to_owned()
        } else {
            config
        };
        on_node(&["tee", CONFIG], &config).ok();
        let agent = if plugin == "ours" {
            let words: Vec<&str> = ["--config", CONFIG]
                .into_iter()
                .chain(arguments.clone())
                .collect();
            Agent::start_program(program, &gpus, &words)
        } else {
            let words: Vec<&OsStr> = ["--config-file", CONFIG]
                .into_iter()
                .chain(arguments.clone())
                .map(OsStr::new)
                .collect();
            Agent::start_any(program, &gpus, &words)
        };
        let took = kubelet.wait("nvidia.com/gpu", GPUS * replicas, agent.started, &agent);
        (agent, took)
    };
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();

    // Three starts, as the first one meets cold caches.
    let mut starts = Vec::new();
    for _ in 0..3 {
        let (agent, took) = start(1);
        starts.push(took.as_millis().to_string());
        agent.end("TERM");
        wait_for_none(&kubelet)?;
    }
    println!(
        "{name}: {GPUS} GPUs known to the kubelet after {} ms",
        starts.join(", ")
    );

    let (agent, took) = start(SHARES);
    println!("{name}: {} shares after {} ms", GPUS * SHARES, took.as_millis());
    let socket = match plugin.as_str() {
        "ours" => "pitcrew-gpu.sock",
        other => other,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(ask(&name, &kubelet_dir().join("device-plugins").join(socket)))?;
    let before = cpu(agent.pid())?;
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = cpu(agent.pid())?.saturating_sub(before);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    for line in status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS") || line.starts_with("Rss"))
    {
        println!(
            "{name}: {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    let share = spent.as_secs_f64() * 100.0 / Duration::from_secs(seconds).as_secs_f64();
    println!("{name}: {share:.2} % of a core over {seconds} s at rest");
    agent.end("TERM");
    Ok(())
}

fn wait_for_none(kubelet: &PodResources) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + Duration::from_secs(30);
    while !kubelet.allocatable("nvidia.com/gpu").is_empty() {
        if Instant::now() > end {
            return Err("the kubelet keeps the GPUs of a plugin that ended".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// CPU time of a process so far, from `/proc/PID/schedstat` of its threads.
fn cpu(pid: u32) -> Result<Duration, Box<dyn Error>> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

async fn ask(name: &str, socket: &Path) -> Result<(), Box<dyn Error>> {
    let mut client = DevicePluginClient::new(pitcrew_kubelet::connect(socket, Duration::from_secs(5)).await?);
    let mut devices = client.list_and_watch(Empty {}).await?.into_inner();
    let first = devices.message().await?.ok_or("the plugin told no devices")?;
    let ids: Vec<String> = first.devices.into_iter().map(|device| device.id).collect();
    let (mut allocate, mut prefer) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
    for call in 0..CALLS {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                device_ids: vec![ids[call % ids.len()].clone()],
            }],
        };
        let begin = Instant::now();
        client.allocate(request).await?;
        allocate.push(begin.elapsed());
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: ids.clone(),
                must_include_device_ids: Vec::new(),
                allocation_size: i32::try_from(call % GPUS + 1)?,
            }],
        };
        let begin = Instant::now();
        client.get_preferred_allocation(request).await?;
        prefer.push(begin.elapsed());
    }
    print(&format!("{name}: Allocate"), allocate);
    print(&format!("{name}: GetPreferredAllocation"), prefer);
    Ok(())
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    println!(
        "{what}: p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?} of {} calls",
        at(500),
        at(990),
        at(999),
        times[times.len() - 1],
        times.len()
    );
}
