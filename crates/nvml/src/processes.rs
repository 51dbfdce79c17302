//! Processes that hold a GPU.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Reading;
use pitcrew_core::gpu::{GpuProcess, ProcessKind};

use crate::call;
use crate::code::Answer;
use crate::device::Device;

/// No GPU instance or compute instance.
const NONE: u32 = u32::MAX;

impl Device<'_> {
    /// Processes that hold it, by pid. MPS clients are those that the MPS list has, not the compute list.
    pub(crate) fn processes(self) -> Reading<Vec<GpuProcess>> {
        let functions = &self.library.functions;
        let compute = running(
            || call::list(&functions.nvmlDeviceGetComputeRunningProcesses_v3, self),
            || call::list(&functions.nvmlDeviceGetComputeRunningProcesses_v2, self),
            || call::list(&functions.nvmlDeviceGetComputeRunningProcesses, self),
        );
        let graphics = running(
            || call::list(&functions.nvmlDeviceGetGraphicsRunningProcesses_v3, self),
            || call::list(&functions.nvmlDeviceGetGraphicsRunningProcesses_v2, self),
            || call::list(&functions.nvmlDeviceGetGraphicsRunningProcesses, self),
        );
        let mps = running(
            || call::list(&functions.nvmlDeviceGetMPSComputeRunningProcesses_v3, self),
            || call::list(&functions.nvmlDeviceGetMPSComputeRunningProcesses_v2, self),
            || call::list(&functions.nvmlDeviceGetMPSComputeRunningProcesses, self),
        );
        merge_processes(compute, graphics, mps)
    }
}

/// A process as NVML lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    memory_bytes: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// The newest form of a list that this driver has. The oldest says nothing of instances.
fn running(
    newest: impl FnOnce() -> Answer<Vec<sys::nvmlProcessInfo_v2_t>>,
    older: impl FnOnce() -> Answer<Vec<sys::nvmlProcessInfo_v2_t>>,
    oldest: impl FnOnce() -> Answer<Vec<sys::nvmlProcessInfo_v1_t>>,
) -> Answer<Vec<Process>> {
    let with_instances = |all: Vec<sys::nvmlProcessInfo_v2_t>| {
        all.iter()
            .map(|process| Process {
                pid: process.pid,
                memory_bytes: process.usedGpuMemory,
                gpu_instance: process.gpuInstanceId,
                compute_instance: process.computeInstanceId,
            })
            .collect()
    };
    let without = |all: Vec<sys::nvmlProcessInfo_v1_t>| {
        all.iter()
            .map(|process| Process {
                pid: process.pid,
                memory_bytes: process.usedGpuMemory,
                gpu_instance: NONE,
                compute_instance: NONE,
            })
            .collect()
    };
    match newest() {
        Err(code) if code.wants_older_call() => {}
        answer => return answer.map(with_instances),
    }
    match older() {
        Err(code) if code.wants_older_call() => oldest().map(without),
        answer => answer.map(with_instances),
    }
}

/// One list out of three, each of which may be missing.
fn merge_processes(
    compute: Answer<Vec<Process>>,
    graphics: Answer<Vec<Process>>,
    mps: Answer<Vec<Process>>,
) -> Reading<Vec<GpuProcess>> {
    let lists = [
        (compute, ProcessKind::Compute),
        (graphics, ProcessKind::Graphics),
        (mps, ProcessKind::Mps),
    ];
    let (mut all, mut known) = (Vec::new(), false);
    for (list, kind) in lists {
        match list {
            Ok(list) => {
                known = true;
                all.extend(list.into_iter().map(|process| (process, kind)));
            }
            Err(code) if code.is_unsupported() => {}
            Err(code) => return Reading::Failed(code.to_string()),
        }
    }
    if !known {
        return Reading::NotSupported;
    }
    let is_mps = |of: &Process| {
        all.iter().any(|(process, kind)| {
            *kind == ProcessKind::Mps
                && (process.pid, process.gpu_instance, process.compute_instance)
                    == (of.pid, of.gpu_instance, of.compute_instance)
        })
    };
    let mut processes: Vec<GpuProcess> = all
        .iter()
        .filter(|(process, kind)| *kind != ProcessKind::Compute || !is_mps(process))
        .map(|(process, kind)| GpuProcess {
            pid: process.pid,
            kind: *kind,
            // `NVML_VALUE_NOT_AVAILABLE`: some virtual machines, Windows.
            memory_bytes: if process.memory_bytes == u64::MAX {
                Reading::NotSupported
            } else {
                Reading::Value(process.memory_bytes)
            },
            gpu_instance: Some(process.gpu_instance).filter(|id| *id != NONE),
            compute_instance: Some(process.compute_instance).filter(|id| *id != NONE),
        })
        .collect();
    processes.sort_by_key(|process| (process.pid, process.gpu_instance, process.compute_instance));
    Reading::Value(processes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Code;

    fn process(pid: u32, memory_bytes: u64, gpu_instance: u32) -> Process {
        Process {
            pid,
            memory_bytes,
            gpu_instance,
            compute_instance: gpu_instance,
        }
    }

    #[test]
    fn a_process_without_an_instance_or_a_known_size_has_none() {
        let list = merge_processes(
            Ok(vec![process(9, u64::MAX, NONE), process(8, 4096, 3)]),
            Err(Code::NOT_SUPPORTED),
            Ok(Vec::new()),
        );
        let expected = [
            GpuProcess {
                pid: 8,
                kind: ProcessKind::Compute,
                memory_bytes: Reading::Value(4096),
                gpu_instance: Some(3),
                compute_instance: Some(3),
            },
            GpuProcess {
                pid: 9,
                kind: ProcessKind::Compute,
                memory_bytes: Reading::NotSupported,
                gpu_instance: None,
                compute_instance: None,
            },
        ];
        assert_eq!(list, Reading::Value(expected.to_vec()));
    }

    #[test]
    fn a_client_of_mps_is_listed_once_and_as_such() {
        let list = merge_processes(
            Ok(vec![process(1, 1, NONE), process(2, 2, NONE)]),
            Ok(vec![process(1, 1, NONE)]),
            Ok(vec![process(2, 2, NONE)]),
        );
        let kinds: Vec<_> = list
            .value()
            .unwrap()
            .iter()
            .map(|process| (process.pid, process.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (1, ProcessKind::Compute),
                (1, ProcessKind::Graphics),
                (2, ProcessKind::Mps)
            ]
        );
    }

    #[test]
    fn processes_that_could_not_be_listed_are_not_none() {
        let none = || Err(Code::NOT_SUPPORTED);
        assert_eq!(merge_processes(none(), none(), none()), Reading::NotSupported);
        assert_eq!(
            merge_processes(Ok(Vec::new()), Err(Code::UNKNOWN), none()),
            Reading::Failed("Unknown Error".to_owned())
        );
        assert_eq!(
            merge_processes(Ok(Vec::new()), none(), none()),
            Reading::Value(Vec::new())
        );
    }

    #[test]
    fn the_oldest_list_is_asked_for_where_there_is_no_other() {
        let old = sys::nvmlProcessInfo_v1_t {
            pid: 5,
            usedGpuMemory: 6,
        };
        let missing = || Err(Code::FUNCTION_NOT_FOUND);
        assert_eq!(
            running(missing, missing, || Ok(vec![old])),
            Ok(vec![process(5, 6, NONE)])
        );
        let lost = || Err(Code::GPU_IS_LOST);
        assert_eq!(
            running(lost, missing, || panic!("a lost GPU is not asked again")),
            Err(Code::GPU_IS_LOST)
        );
    }
}
