"""Reads everything that NVIDIA's own client can read of a node, and prints it as JSON.

Commands on standard input, one a line; the answer to each is one line of JSON:

    read [GPU ...]  everything of these GPUs, or of all, and of their MIG devices
    wait MS         the next event within MS milliseconds, or an error
    cut GPU PROFILE [START]   turns MIG on if need be, creates a GPU instance and in it a compute instance
    part GPU INSTANCE SLICES  creates a compute instance of so many slices in a GPU instance
    unpart GPU INSTANCE COMPUTE   destroys a compute instance
    uncut GPU       destroys all instances of a GPU and turns MIG off
    call NAME ...   one call with whole numbers or text, `@N` for the handle of GPU N

An error of NVML is {"error": "its words"}.
"""

import ctypes
import inspect
import json
import sys

import pynvml as nvml

# Calls that change something, need more than a handle, or give handles.
NOT_READ = {
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
}
# What is different at each look and says nothing of the node.
NOT_SHOWN = {"timeStamp", "timestamp", "referenceTime", "latencyUsec", "lastSeenTimeStamp"}


def plain(value):
    """Whatever the client returns, as JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        return {
            field[0]: plain(getattr(value, field[0]))
            for field in value._fields_
            if field[0] not in NOT_SHOWN
        }
    if isinstance(value, ctypes.Array):
        return [plain(part) for part in value]
    if isinstance(value, ctypes._Pointer):
        return "handle" if value else None
    if isinstance(value, ctypes._SimpleCData):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if hasattr(value, "__dict__"):
        return {name: plain(part) for name, part in vars(value).items() if name not in NOT_SHOWN}
    return value


def attempt(call, *arguments):
    """The answer of one call, or the error in NVML's words."""
    try:
        return plain(call(*arguments))
    except nvml.NVMLError as error:
        return {"error": str(error)}
    except (TypeError, ctypes.ArgumentError) as error:
        return {"error": f"client: {error}"}


def constants(prefix, most=None):
    """Name and number of a kind of constants of the client, without their counts."""
    found = {
        name: number
        for name, number in vars(nvml).items()
        if name.startswith(prefix) and isinstance(number, int) and not name.endswith("_COUNT")
    }
    return found if most is None else {name: number for name, number in found.items() if number < most}


def takes_a_handle_only(function):
    parameters = list(inspect.signature(function).parameters.values())
    required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return len(required) == 1 and required[0].name in ("handle", "device")


READS = {
    name: function
    for name, function in sorted(vars(nvml).items())
    if name.startswith("nvmlDeviceGet") and name not in NOT_READ
    and inspect.isfunction(function) and takes_a_handle_only(function)
}
FIELDS = constants("NVML_FI_DEV_")


def fields(handle):
    values = nvml.nvmlDeviceGetFieldValues(handle, list(FIELDS.values()))
    answers = {}
    for name, value in zip(FIELDS, values):
        code = value.nvmlReturn
        answers[name] = {"error": str(nvml.NVMLError(code))} if code else value.value.ullVal
    return answers


def gpm(handle):
    first, second = nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()
    try:
        nvml.nvmlGpmSampleGet(handle, first)
        nvml.nvmlGpmSampleGet(handle, second)
        metrics = [number for number in sorted(set(constants("NVML_GPM_METRIC_").values())) if 0 < number < 100]
        request = nvml.c_nvmlGpmMetricsGet_t()
        request.version = nvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(metrics)
        request.sample1, request.sample2 = first, second
        for at, metric in enumerate(metrics):
            request.metrics[at].metricId = metric
        nvml.nvmlGpmMetricsGet(request)
        return {
            str(metric.metricId): {"error": str(nvml.NVMLError(metric.nvmlReturn))} if metric.nvmlReturn else metric.value
            for metric in request.metrics[: len(metrics)]
        }
    finally:
        nvml.nvmlGpmSampleFree(first)
        nvml.nvmlGpmSampleFree(second)


def links(handle):
    answers = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        answers.append({
            "state": attempt(nvml.nvmlDeviceGetNvLinkState, handle, link),
            "version": attempt(nvml.nvmlDeviceGetNvLinkVersion, handle, link),
            "remote": attempt(nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link),
            "remote_type": attempt(nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link),
            "p2p": attempt(nvml.nvmlDeviceGetNvLinkCapability, handle, link, nvml.NVML_NVLINK_CAP_P2P_SUPPORTED),
        })
    return answers


def placements(handle, profile):
    count = ctypes.c_uint(0)
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, None, ctypes.byref(count))
    places = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, places, ctypes.byref(count))
    return places


def profiles(handle):
    answers = {}
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        info = attempt(nvml.nvmlDeviceGetGpuInstanceProfileInfo, handle, number)
        if "error" not in info:
            info["placements"] = attempt(placements, handle, info["id"])
            info["remaining"] = attempt(nvml.nvmlDeviceGetGpuInstanceRemainingCapacity, handle, info["id"])
        answers[str(number)] = info
    return answers


def processes(handle):
    names = ["Compute", "Graphics", "MPSCompute"]
    versions = ["", "_v2", "_v3"]
    return {
        f"{name}{version}": attempt(getattr(nvml, f"nvmlDeviceGet{name}RunningProcesses{version}"), handle)
        for name in names
        for version in versions
    }


def with_arguments(handle):
    """Calls that need to be told what."""
    answers = {
        "memory_v2": attempt(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2),
        "temperature": attempt(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "temperature_v": attempt(nvml.nvmlDeviceGetTemperatureV, handle, nvml.NVML_TEMPERATURE_GPU),
        "fan_0": attempt(nvml.nvmlDeviceGetFanSpeed_v2, handle, 0),
        "cpu_affinity": attempt(nvml.nvmlDeviceGetCpuAffinity, handle, 2),
        "memory_affinity": attempt(nvml.nvmlDeviceGetMemoryAffinity, handle, 1, 0),
        "pcie_tx": attempt(nvml.nvmlDeviceGetPcieThroughput, handle, nvml.NVML_PCIE_UTIL_TX_BYTES),
        "process_utilization": attempt(nvml.nvmlDeviceGetProcessUtilization, handle, 0),
        "processes": processes(handle),
        "fields": attempt(fields, handle),
        "gpm": attempt(gpm, handle),
        "links": links(handle),
        "profiles": profiles(handle),
    }
    fabric = nvml.c_nvmlGpuFabricInfoV_t()
    answers["fabric"] = attempt(lambda: (nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(fabric)), fabric)[1])
    extended = nvml.nvmlPciInfoExt_v1_t()
    extended.version = nvml.nvmlPciInfoExt_v1
    answers["pci_ext"] = attempt(lambda: (nvml.nvmlDeviceGetPciInfoExt(handle, ctypes.byref(extended)), extended)[1])
    for clock, number in constants("NVML_CLOCK_", 4).items():
        if clock.startswith("NVML_CLOCK_ID") or clock.startswith("NVML_CLOCK_LIMIT"):
            continue
        answers[f"{clock}"] = attempt(nvml.nvmlDeviceGetClockInfo, handle, number)
        answers[f"{clock} max"] = attempt(nvml.nvmlDeviceGetMaxClockInfo, handle, number)
        answers[f"{clock} app"] = attempt(nvml.nvmlDeviceGetApplicationsClock, handle, number)
    for name, number in constants("NVML_TEMPERATURE_THRESHOLD_").items():
        answers[name] = attempt(nvml.nvmlDeviceGetTemperatureThreshold, handle, number)
    for error, kind in (("corrected", 0), ("uncorrected", 1)):
        for counter, number in (("volatile", 0), ("aggregate", 1)):
            answers[f"ecc {error} {counter}"] = attempt(nvml.nvmlDeviceGetTotalEccErrors, handle, kind, number)
            answers[f"ecc dram {error} {counter}"] = attempt(
                nvml.nvmlDeviceGetMemoryErrorCounter, handle, kind, number, 2
            )
            answers[f"ecc detail {error} {counter}"] = attempt(
                nvml.nvmlDeviceGetDetailedEccErrors, handle, kind, number
            )
    for policy, number in constants("NVML_PERF_POLICY_").items():
        answers[policy] = attempt(nvml.nvmlDeviceGetViolationStatus, handle, number)
    for kind in range(7):
        answers[f"samples {kind}"] = attempt(nvml.nvmlDeviceGetSamples, handle, kind, 0)
    for cause in (0, 1):
        answers[f"retired pages {cause}"] = attempt(nvml.nvmlDeviceGetRetiredPages, handle, cause)
    return answers


def device(handle):
    answers = {name: attempt(function, handle) for name, function in READS.items()}
    answers.update(with_arguments(handle))
    return answers


def mig_devices(handle):
    try:
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return []
    found = []
    for index in range(most):
        try:
            slice_ = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue
        answers = device(slice_)
        answers["gpu_instance"] = attempt(nvml.nvmlDeviceGetGpuInstanceId, slice_)
        answers["compute_instance"] = attempt(nvml.nvmlDeviceGetComputeInstanceId, slice_)
        answers["is_mig"] = attempt(nvml.nvmlDeviceIsMigDeviceHandle, slice_)
        parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_)
        answers["parent"] = nvml.nvmlDeviceGetUUID(parent)
        found.append(answers)
    return found


def pairs(handles):
    answers = {}
    for (one, first) in handles.items():
        for (other, second) in handles.items():
            if one < other:
                answers[f"{one}-{other}"] = {
                    "path": attempt(nvml.nvmlDeviceGetTopologyCommonAncestor, first, second),
                    "p2p": [attempt(nvml.nvmlDeviceGetP2PStatus, first, second, index) for index in range(5)],
                    "same_board": attempt(nvml.nvmlDeviceOnSameBoard, first, second),
                }
    return answers


def read(*wanted):
    """The whole node, or these GPUs of it."""
    gpus, handles = [], {}
    for index in map(int, wanted or range(nvml.nvmlDeviceGetCount())):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            gpus.append({"error": str(error)})
            continue
        handles[index] = handle
        answers = device(handle)
        answers["is_mig"] = attempt(nvml.nvmlDeviceIsMigDeviceHandle, handle)
        answers["mig_devices"] = mig_devices(handle)
        uuid, pci = nvml.nvmlDeviceGetUUID, nvml.nvmlDeviceGetPciInfo
        answers["by_uuid"] = attempt(lambda: nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(uuid(handle))))
        answers["by_pci"] = attempt(
            lambda: nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByPciBusId(pci(handle).busId))
        )
        serial = nvml.nvmlDeviceGetSerial
        answers["by_serial"] = attempt(
            lambda: nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleBySerial(serial(handle)))
        )
        gpus.append(answers)
    return {
        "driver": attempt(nvml.nvmlSystemGetDriverVersion),
        "nvml": attempt(nvml.nvmlSystemGetNVMLVersion),
        "cuda": attempt(nvml.nvmlSystemGetCudaDriverVersion_v2),
        "branch": attempt(nvml.nvmlSystemGetDriverBranch),
        "gpus": gpus,
        "pairs": pairs(handles),
    }


class Events:
    """All kinds of events of all GPUs that can be opened."""

    def __init__(self):
        self.set = nvml.nvmlEventSetCreate()
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                kinds = nvml.nvmlDeviceGetSupportedEventTypes(handle)
                nvml.nvmlDeviceRegisterEvents(handle, kinds, self.set)
            except nvml.NVMLError:
                continue

    def wait(self, milliseconds):
        event = nvml.nvmlEventSetWait_v2(self.set, milliseconds)
        return {
            "gpu": nvml.nvmlDeviceGetIndex(event.device),
            "type": event.eventType,
            "data": event.eventData,
            "gpu_instance": event.gpuInstanceId,
            "compute_instance": event.computeInstanceId,
        }


def gpu_instances(handle):
    found = []
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number)
        except nvml.NVMLError:
            continue
        array = (nvml.c_nvmlGpuInstance_t * info.instanceCount)()
        count = ctypes.c_uint(0)
        nvml.nvmlDeviceGetGpuInstances(handle, info.id, array, ctypes.byref(count))
        found.extend(array[: count.value])
    return found


def compute_instances(instance):
    found = []
    for number in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0)
        except nvml.NVMLError:
            continue
        array = (nvml.c_nvmlComputeInstance_t * info.instanceCount)()
        count = ctypes.c_uint(0)
        nvml.nvmlGpuInstanceGetComputeInstances(instance, info.id, array, ctypes.byref(count))
        found.extend(array[: count.value])
    return found


def cut(index, profile, start=None):
    handle = nvml.nvmlDeviceGetHandleByIndex(int(index))
    if nvml.nvmlDeviceGetMigMode(handle)[0] == 0:
        nvml.nvmlDeviceSetMigMode(handle, nvml.NVML_DEVICE_MIG_ENABLE)
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        info = attempt(nvml.nvmlDeviceGetGpuInstanceProfileInfo, handle, number)
        if info.get("name") == f"MIG {profile}":
            break
    else:
        return {"error": f"no profile {profile}"}
    if start is None:
        instance = nvml.nvmlDeviceCreateGpuInstance(handle, info["id"])
    else:
        place = next(place for place in placements(handle, info["id"]) if place.start == int(start))
        instance = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, info["id"], ctypes.byref(place))
    return part(index, nvml.nvmlGpuInstanceGetInfo(instance).id, info["sliceCount"])


def part(index, gpu_instance, slices):
    handle = nvml.nvmlDeviceGetHandleByIndex(int(index))
    instance = nvml.nvmlDeviceGetGpuInstanceById(handle, int(gpu_instance))
    for number in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        compute = attempt(nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, number, 0)
        if compute.get("sliceCount") == int(slices):
            made = nvml.nvmlGpuInstanceCreateComputeInstance(instance, compute["id"])
            return {
                "gpu_instance": plain(nvml.nvmlGpuInstanceGetInfo(instance)),
                "compute_instance": plain(nvml.nvmlComputeInstanceGetInfo_v2(made)),
            }
    return {"error": "no compute profile"}


def unpart(index, gpu_instance, compute_instance):
    handle = nvml.nvmlDeviceGetHandleByIndex(int(index))
    instance = nvml.nvmlDeviceGetGpuInstanceById(handle, int(gpu_instance))
    compute = nvml.nvmlGpuInstanceGetComputeInstanceById(instance, int(compute_instance))
    nvml.nvmlComputeInstanceDestroy(compute)
    return len(compute_instances(instance))


def uncut(index):
    handle = nvml.nvmlDeviceGetHandleByIndex(int(index))
    for instance in gpu_instances(handle):
        for compute in compute_instances(instance):
            nvml.nvmlComputeInstanceDestroy(compute)
        nvml.nvmlGpuInstanceDestroy(instance)
    nvml.nvmlDeviceSetMigMode(handle, nvml.NVML_DEVICE_MIG_DISABLE)
    return nvml.nvmlDeviceGetMigMode(handle)


def argument(text):
    if text.startswith("@"):
        return nvml.nvmlDeviceGetHandleByIndex(int(text[1:]))
    return int(text) if text.lstrip("-").isdigit() else text


def main():
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    events = Events()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        answer = {
            "read": lambda: attempt(read, *words),
            "wait": lambda: attempt(events.wait, int(words[0])),
            "cut": lambda: attempt(cut, *words),
            "part": lambda: attempt(part, *words),
            "unpart": lambda: attempt(unpart, *words),
            "uncut": lambda: attempt(uncut, *words),
            "call": lambda: attempt(lambda: getattr(nvml, words[0])(*map(argument, words[1:]))),
        }[command]()
        print(json.dumps(answer, sort_keys=True), flush=True)
    nvml.nvmlShutdown()


main()
