"""What `pitcrew gpus -o json` and `nvidia-smi -q -x` both say, field by field, and what only one of them says.

Paths of pitcrew are those of its JSON, with `[]` for each element of a list; paths of nvidia-smi are those of its XML
below the root, with `@` before an attribute. Elements of R550 to R615 are known; which of them a driver writes depends
on it and on the card.
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple, Tuple

MIB = 1 << 20


class Tolerance(NamedTuple):
    """How far apart two values may be, and why."""

    why: str
    #: The width in words.
    width: str = "exact"
    #: Largest difference, in pitcrew's unit.
    margin: float = 0
    #: Largest difference as a share of nvidia-smi's value; the larger of both margins counts.
    share: float = 0
    #: The value moves by itself: it only has to lie between nvidia-smi's before and after, widened by the margin.
    moving: bool = False

    def __str__(self) -> str:
        if not self.moving:
            return self.width
        return "between" if self.width == "exact" else f"between, {self.width}"


EXACT = Tolerance("does not change while a machine runs")
SETTING = Tolerance("changes only when somebody sets it")
WHOLE_MIB = Tolerance("nvidia-smi prints whole MiB", "< 1 MiB", margin=MIB - 1)
USED_MIB = Tolerance("nvidia-smi prints whole MiB; processes come and go", "< 1 MiB", margin=MIB - 1, moving=True)
CENTIWATT = Tolerance("nvidia-smi prints hundredths of a watt", "+-0.01 W", margin=10)
POWER = Tolerance("an average over a second moves", "+-10 W or 10 %", margin=10_000, share=0.1, moving=True)
INSTANT_POWER = Tolerance("jumps with every kernel", "+-25 W or 25 %", margin=25_000, share=0.25, moving=True)
TEMPERATURE = Tolerance("sensors step by a degree", "+-2 C", margin=2, moving=True)
LOAD = Tolerance("each call sees another sample period", "+-5 %", margin=5, moving=True)
CLOCK = Tolerance("clocks follow the load in steps of at most 15 MHz", "+-15 MHz", margin=15, moving=True)
STATE = Tolerance("follows the load", moving=True)
COUNTER = Tolerance("counts while we look", moving=True)
PROCESS_MEMORY = Tolerance("processes allocate while we look", "1 MiB or 5 %", margin=MIB - 1, share=0.05, moving=True)
COMES_AND_GOES = Tolerance("what is there before and after must be there, and nothing else", moving=True)


class Field(NamedTuple):
    """One thing that both say."""

    #: pitcrew's path.
    pitcrew: str
    #: nvidia-smi's: the first of these that has a value; several paths in one are added up.
    smi: Tuple[Tuple[str, ...], ...]
    #: From nvidia-smi's text to pitcrew's value.
    read: Callable[[str], Any]
    tolerance: Tolerance
    #: From pitcrew's value to what is compared.
    part: Callable[[Any], Any] = lambda value: value
    #: Tells rows apart that share a path of pitcrew.
    detail: str = ""

    @property
    def name(self) -> str:
        return f"{self.pitcrew} ({self.detail})" if self.detail else self.pitcrew


# From text to value. What can't be read raises ValueError.


#: How nvidia-smi says that a card has no such thing, or that the driver no longer tells.
ABSENT_TEXTS = ("N/A", "None", "", "Not Supported", "Requested functionality has been deprecated")
#: How it says that there should have been a value.
FAILED_TEXTS = ("Unknown Error", "GPU is lost", "GPU requires reset", "Insufficient Permissions", "ERR!", "Not Found")


def text(value: str) -> str:
    if value in ABSENT_TEXTS + FAILED_TEXTS:
        raise ValueError(f"`{value}` stands for no text")
    return value


def number(value: str) -> int:
    return int(value)


def unit(suffix: str, factor: int = 1) -> Callable[[str], float]:
    """`81559 MiB` and the like; the unit is part of what is compared."""

    def read(value: str) -> float:
        found = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?" + re.escape(suffix), value)
        if not found:
            raise ValueError(f"`{value}` is not a number of {suffix}")
        amount = float(found[1]) * factor
        return int(amount) if amount == int(amount) else amount

    return read


def one_of(meanings: dict) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        if value not in meanings:
            raise ValueError(f"`{value}` is none of {', '.join(meanings)}")
        return meanings[value]

    return read


ENABLED = one_of({"Enabled": True, "Disabled": False})
YES = one_of({"Yes": True, "No": False})
ACTIVE = one_of({"Active": True, "Not Active": False})
COMPUTE_MODE = one_of({"Default": "default", "Exclusive_Process": "exclusive-process", "Prohibited": "prohibited"})
#: By NVIDIA's manual of nvidia-smi.
RECOVERY_ACTION = one_of(
    {
        "None": "none",
        "Reset": "gpu-reset",
        "Reboot": "node-reboot",
        "Drain P2P": "drain-p2p",
        "Drain and Reset": "drain-and-reset",
    }
)
FABRIC_STATE = one_of({"Not Started": "not-started", "In Progress": "in-progress", "Completed": "completed"})
VIRTUALIZATION = one_of(
    {
        "None": "none",
        "Pass-Through": "passthrough",
        "VGPU": "vgpu",
        "Host VGPU": "host-vgpu",
        "Host VSGA": "host-vsga",
    }
)


def address(value: str) -> str:
    """`00000000:1B:00.0`, as the kernel writes it."""
    found = re.fullmatch(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])", value)
    if not found:
        raise ValueError(f"`{value}` is not a PCI address")
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}.{found[4]}".lower()


def hexadecimal(value: str) -> int:
    return int(value, 16)


def high_half(value: str) -> str:
    """The device of `233010DE`, as pitcrew writes ids."""
    return f"{int(value, 16) >> 16:#06x}"


def low_half(value: str) -> str:
    return f"{int(value, 16) & 0xFFFF:#06x}"


def performance_state(value: str) -> int:
    if not re.fullmatch(r"P\d+", value):
        raise ValueError(f"`{value}` is not a performance state")
    return int(value[1:])


def process_kind(value: str) -> frozenset:
    """`C`, `G`, `C+G`, `M+C`: what one process does. An MPS client computes, which goes without saying."""
    kinds = {one_of({"C": "compute", "G": "graphics", "M": "mps"})(letter) for letter in value.split("+")}
    return plain_kinds(kinds)


def plain_kinds(kinds: Any) -> frozenset:
    kinds = frozenset(kinds)
    return kinds - {"compute"} if "mps" in kinds else kinds


def piece(index: int) -> Callable[[str], int]:
    """Domain, bus or device of pitcrew's PCI address."""
    return lambda value: int(re.split("[:.]", value)[index], 16)


def bit(mask: int) -> Callable[[int], bool]:
    return lambda value: bool(value & mask)


# NVML's `nvmlClocksEventReason*`, by nvidia-smi's name.
REASONS = {
    "gpu_idle": 0x001,
    "applications_clocks_setting": 0x002,
    "sw_power_cap": 0x004,
    "hw_slowdown": 0x008,
    "sync_boost": 0x010,
    "sw_thermal_slowdown": 0x020,
    "hw_thermal_slowdown": 0x040,
    "hw_power_brake_slowdown": 0x080,
    "display_clocks_setting": 0x100,
}


def same(pitcrew: str, smi: str, read: Callable[[str], Any], tolerance: Tolerance, **more: Any) -> Field:
    return Field(pitcrew, ((smi,),), read, tolerance, **more)


#: Where nvidia-smi lists a GPU; its order is the driver's.
POSITION = "gpu#position"
VOLATILE = "gpu/ecc_errors/volatile/"
POWERS = "gpu/gpu_power_readings/"
LINK = "gpu/pci/pci_gpu_link_info/"

FIELDS = (
    Field("driver.version", (("driver_version",), ("kmd_version",)), text, EXACT),
    Field("driver.cuda", (("cuda_version",), ("cuda_umd_version",)), text, EXACT),
    same("gpus", "attached_gpus", number, EXACT, part=len, detail="how many"),
    same("gpus[].index", POSITION, number, EXACT),
    same("gpus[].pci.address", "gpu@id", address, EXACT, detail="the id"),
    same("gpus[].pci.address", "gpu/pci/pci_bus_id", address, EXACT),
    same("gpus[].pci.address", "gpu/pci/pci_domain", hexadecimal, EXACT, part=piece(0), detail="domain"),
    same("gpus[].pci.address", "gpu/pci/pci_bus", hexadecimal, EXACT, part=piece(1), detail="bus"),
    same("gpus[].pci.address", "gpu/pci/pci_device", hexadecimal, EXACT, part=piece(2), detail="device"),
    same("gpus[].pci.device_id", "gpu/pci/pci_device_id", high_half, EXACT),
    same("gpus[].pci.vendor_id", "gpu/pci/pci_device_id", low_half, EXACT),
    same("gpus[].pci.subsystem_device_id", "gpu/pci/pci_sub_system_id", high_half, EXACT),
    same("gpus[].pci.subsystem_vendor_id", "gpu/pci/pci_sub_system_id", low_half, EXACT),
    same("gpus[].name", "gpu/product_name", text, EXACT),
    same("gpus[].uuid", "gpu/uuid", text, EXACT),
    same("gpus[].serial", "gpu/serial", text, EXACT),
    same("gpus[].board_part_number", "gpu/board_part_number", text, EXACT),
    same("gpus[].vbios", "gpu/vbios_version", text, EXACT),
    same("gpus[].gsp_firmware", "gpu/gsp_firmware_version", text, EXACT),
    same("gpus[].minor", "gpu/minor_number", number, EXACT),
    same("gpus[].memory_total_bytes", "gpu/fb_memory_usage/total", unit("MiB", MIB), WHOLE_MIB),
    same("gpus[].memory_used_bytes", "gpu/fb_memory_usage/used", unit("MiB", MIB), USED_MIB),
    same("gpus[].memory_free_bytes", "gpu/fb_memory_usage/free", unit("MiB", MIB), USED_MIB),
    same("gpus[].memory_reserved_bytes", "gpu/fb_memory_usage/reserved", unit("MiB", MIB), USED_MIB),
    same("gpus[].bar1_total_bytes", "gpu/bar1_memory_usage/total", unit("MiB", MIB), WHOLE_MIB),
    same("gpus[].bar1_used_bytes", "gpu/bar1_memory_usage/used", unit("MiB", MIB), USED_MIB),
    same("gpus[].temperature_c", "gpu/temperature/gpu_temp", unit("C"), TEMPERATURE),
    same("gpus[].memory_temperature_c", "gpu/temperature/memory_temp", unit("C"), TEMPERATURE),
    same("gpus[].fan_percent", "gpu/fan_speed", unit("%"), LOAD),
    # NVML has one call for both: it averages from Ampere on, but for GA100, and is instantaneous before.
    Field(
        "gpus[].power_mw",
        ((POWERS + "average_power_draw",), (POWERS + "instant_power_draw",)),
        unit("W", 1000),
        POWER,
    ),
    same("gpus[].power_instant_mw", POWERS + "instant_power_draw", unit("W", 1000), INSTANT_POWER),
    same("gpus[].power_limit_mw", POWERS + "current_power_limit", unit("W", 1000), CENTIWATT),
    same("gpus[].power_limit_requested_mw", POWERS + "requested_power_limit", unit("W", 1000), CENTIWATT),
    same("gpus[].power_limit_default_mw", POWERS + "default_power_limit", unit("W", 1000), CENTIWATT),
    same("gpus[].power_limit_range_mw.min", POWERS + "min_power_limit", unit("W", 1000), CENTIWATT),
    same("gpus[].power_limit_range_mw.max", POWERS + "max_power_limit", unit("W", 1000), CENTIWATT),
    same("gpus[].utilization_gpu_percent", "gpu/utilization/gpu_util", unit("%"), LOAD),
    same("gpus[].utilization_memory_percent", "gpu/utilization/memory_util", unit("%"), LOAD),
    same("gpus[].clock_sm_mhz", "gpu/clocks/sm_clock", unit("MHz"), CLOCK),
    same("gpus[].clock_memory_mhz", "gpu/clocks/mem_clock", unit("MHz"), CLOCK),
    same("gpus[].clock_sm_max_mhz", "gpu/max_clocks/sm_clock", unit("MHz"), EXACT),
    same("gpus[].clock_memory_max_mhz", "gpu/max_clocks/mem_clock", unit("MHz"), EXACT),
    *(
        same(
            "gpus[].clocks_event_reasons",
            f"gpu/clocks_event_reasons/clocks_event_reason_{name}",
            ACTIVE,
            STATE,
            part=bit(mask),
            detail=name,
        )
        for name, mask in REASONS.items()
    ),
    same("gpus[].performance_state", "gpu/performance_state", performance_state, STATE),
    same("gpus[].pcie_generation", LINK + "pcie_gen/current_link_gen", number, STATE),
    same("gpus[].pcie_generation_max", LINK + "pcie_gen/max_link_gen", number, EXACT),
    same("gpus[].pcie_width", LINK + "link_widths/current_link_width", unit("x"), STATE),
    same("gpus[].pcie_width_max", LINK + "link_widths/max_link_width", unit("x"), EXACT),
    same("gpus[].pcie_replays", "gpu/pci/replay_counter", number, COUNTER),
    same("gpus[].fabric.state", "gpu/fabric/state", FABRIC_STATE, STATE),
    same("gpus[].fabric.status", "gpu/fabric/status", text, STATE),
    same("gpus[].fabric.clique", "gpu/fabric/cliqueId", number, STATE),
    same("gpus[].fabric.cluster_uuid", "gpu/fabric/clusterUuid", text, STATE),
    same("gpus[].ecc", "gpu/ecc_mode/current_ecc", ENABLED, SETTING),
    same("gpus[].ecc_pending", "gpu/ecc_mode/pending_ecc", ENABLED, SETTING),
    Field(
        "gpus[].ecc_corrected",
        ((VOLATILE + "sram_correctable", VOLATILE + "dram_correctable"),),
        number,
        COUNTER,
    ),
    Field(
        "gpus[].ecc_uncorrected",
        (
            (
                VOLATILE + "sram_uncorrectable_parity",
                VOLATILE + "sram_uncorrectable_secded",
                VOLATILE + "dram_uncorrectable",
            ),
            # Before Ampere.
            (VOLATILE + "sram_uncorrectable", VOLATILE + "dram_uncorrectable"),
        ),
        number,
        COUNTER,
    ),
    same("gpus[].remapped_rows.correctable", "gpu/remapped_rows/remapped_row_corr", number, COUNTER),
    same("gpus[].remapped_rows.uncorrectable", "gpu/remapped_rows/remapped_row_unc", number, COUNTER),
    same("gpus[].remapped_rows.pending", "gpu/remapped_rows/remapped_row_pending", YES, COUNTER),
    same("gpus[].remapped_rows.failure", "gpu/remapped_rows/remapped_row_failure", YES, COUNTER),
    same(
        "gpus[].retired_pages.single_bit",
        "gpu/retired_pages/multiple_single_bit_retirement/retired_count",
        number,
        COUNTER,
    ),
    same("gpus[].retired_pages.double_bit", "gpu/retired_pages/double_bit_retirement/retired_count", number, COUNTER),
    Field(
        "gpus[].retired_pages.pending",
        (("gpu/retired_pages/pending_retirement",), ("gpu/retired_pages/pending_blacklist",)),
        YES,
        COUNTER,
    ),
    same("gpus[].recovery_action", "gpu/gpu_recovery_action", RECOVERY_ACTION, STATE),
    same("gpus[].persistence", "gpu/persistence_mode", ENABLED, SETTING),
    same("gpus[].virtualization", "gpu/gpu_virtualization_mode/virtualization_mode", VIRTUALIZATION, EXACT),
    same("gpus[].compute_mode", "gpu/compute_mode", COMPUTE_MODE, SETTING),
    same("gpus[].mig_mode.current", "gpu/mig_mode/current_mig", ENABLED, SETTING),
    same("gpus[].mig_mode.pending", "gpu/mig_mode/pending_mig", ENABLED, SETTING),
)


class Members(NamedTuple):
    """A list on each GPU whose elements are told apart by a key; compared where there are any."""

    pitcrew: str
    smi: str
    key: Tuple[Field, ...]
    fields: Tuple[Field, ...]
    tolerance: Tolerance


MIG, MIG_XML = "gpus[].mig_devices", "gpu/mig_devices/mig_device"
PROCESSES, PROCESSES_XML = "gpus[].processes", "gpu/processes/process_info"

MEMBERS = (
    Members(
        MIG,
        MIG_XML,
        key=(
            same(f"{MIG}[].gpu_instance", f"{MIG_XML}/gpu_instance_id", number, SETTING),
            same(f"{MIG}[].compute_instance", f"{MIG_XML}/compute_instance_id", number, SETTING),
        ),
        fields=(
            same(f"{MIG}[].memory_total_bytes", f"{MIG_XML}/fb_memory_usage/total", unit("MiB", MIB), WHOLE_MIB),
            same(f"{MIG}[].memory_used_bytes", f"{MIG_XML}/fb_memory_usage/used", unit("MiB", MIB), USED_MIB),
            same(
                f"{MIG}[].multiprocessors",
                f"{MIG_XML}/device_attributes/shared/multiprocessor_count",
                number,
                SETTING,
            ),
            *(
                same(
                    f"{MIG}[].engines.{engine}",
                    f"{MIG_XML}/device_attributes/shared/{theirs}",
                    number,
                    SETTING,
                )
                for engine, theirs in (
                    ("copy", "copy_engine_count"),
                    ("decoder", "decoder_count"),
                    ("encoder", "encoder_count"),
                    ("jpeg", "jpg_count"),
                    ("ofa", "ofa_count"),
                )
            ),
        ),
        tolerance=SETTING,
    ),
    Members(
        PROCESSES,
        PROCESSES_XML,
        key=(
            same(f"{PROCESSES}[].pid", f"{PROCESSES_XML}/pid", number, COMES_AND_GOES),
            same(f"{PROCESSES}[].gpu_instance", f"{PROCESSES_XML}/gpu_instance_id", number, COMES_AND_GOES),
            same(f"{PROCESSES}[].compute_instance", f"{PROCESSES_XML}/compute_instance_id", number, COMES_AND_GOES),
        ),
        fields=(
            same(f"{PROCESSES}[].kind", f"{PROCESSES_XML}/type", process_kind, STATE),
            same(f"{PROCESSES}[].memory_bytes", f"{PROCESSES_XML}/used_memory", unit("MiB", MIB), PROCESS_MEMORY),
        ),
        tolerance=COMES_AND_GOES,
    ),
)

#: What pitcrew alone says; `.*` stands for everything below.
PITCREW_ONLY = {
    "of the document itself": ("schema", "source.*"),
    "`nvidia-smi --version` says it, `-q -x` does not": ("driver.nvml_version",),
    "`/proc/driver/nvidia/version` says it": ("driver.open_kernel_modules",),
    "`nvidia-smi topo -m` and `nvlink -s` say it, `-q -x` does not": (
        "links[].from",
        "links[].to",
        "links[].path",
        "links[].nvlinks",
        "gpus[].nvlinks_active",
    ),
    "asked of NVML, which nvidia-smi does not show in `-q -x`": (
        "gpus[].compute_capability",
        "gpus[].cores",
        "gpus[].memory_bus_bits",
        "gpus[].numa_node",
        "gpus[].energy_mj",
    ),
    "`nvidia-smi -L` and `mig -lgi` say it, `-q -x` does not": (
        f"{MIG}[].uuid",
        f"{MIG}[].profile",
        f"{MIG}[].placement.*",
    ),
    "NVML's events, which only who waits for them sees": ("gpus[].xids[]",),
    "what pitcrew concludes": ("gpus[].class", "gpus[].card", "gpus[].health.*"),
    "what pitcrew could not read; each such field fails where nvidia-smi could": (
        "driver.unread[].field",
        "driver.unread[].reason",
        "gpus[].unread[].field",
        "gpus[].unread[].reason",
    ),
}


def below(parent: str, *names: str) -> Tuple[str, ...]:
    return tuple(f"{parent}/{name}" for name in names)


ECC_KINDS = (
    "sram_correctable",
    "sram_uncorrectable",
    "sram_uncorrectable_parity",
    "sram_uncorrectable_secded",
    "dram_correctable",
    "dram_uncorrectable",
)
LIMITS = ("power_state", "current_power_limit", "requested_power_limit", "default_power_limit")

#: What nvidia-smi alone says.
SMI_ONLY = {
    "when nvidia-smi looked": ("timestamp",),
    "said a second time": (
        POWERS + "power_state",
        LINK + "pcie_gen/device_current_link_gen",
        *below(POWERS + "gpu_ceiling_power_limit", *LIMITS[1:]),
        "gpu/bar1_memory_usage/free",
        f"{MIG_XML}/index",
    ),
    "not read by pitcrew: follows from the card": (
        *below("gpu", "product_brand", "product_architecture", "gpu_part_number", "gpu_fru_part_number", "board_id"),
        *below("gpu", "multigpu_board", "pdi"),
        *below("gpu/pci", "pci_base_class", "pci_sub_class"),
        *below("gpu/pci/pci_bridge_chip", "bridge_chip_type", "bridge_chip_fw"),
        *below("gpu/pci", "atomic_caps_outbound", "atomic_caps_inbound"),
        *below(LINK + "pcie_gen", "max_device_link_gen", "max_host_link_gen"),
        *below("gpu/max_clocks", "graphics_clock", "video_clock"),
        "gpu/max_customer_boost_clocks/graphics_clock",
        *below("gpu/supported_clocks/supported_mem_clock", "value", "supported_graphics_clock"),
        *below("gpu/supported_gpu_target_temp", "gpu_target_temp_min", "gpu_target_temp_max"),
    ),
    "not read by pitcrew: firmware": (
        *below("gpu/inforom_version", "img_version", "oem_object", "ecc_object", "pwr_object"),
        *below("gpu/inforom_bbx_flush", "latest_timestamp", "latest_duration"),
        "gpu/inforom_time_data/time_run",
    ),
    "not read by pitcrew: place in the rack, fabric": (
        *below("gpu/platformInfo", "chassis_serial_number", "slot_number", "tray_index", "host_id", "peer_type"),
        *below("gpu/platformInfo", "module_id", "gpu_fabric_guid"),
        "gpu/c2c_mode",
        *below("gpu/fabric/health", "summary", "bandwidth", "route_recovery_in_progress", "route_unhealthy"),
        *below("gpu/fabric/health", "access_timeout_recovery", "incorrect_configuration", "partition_assigned"),
        "gpu/fabric/health/gfm_state",
        *below("gpu/fabric/cliques/clique_entry", "clique_type", "clique_id"),
        "gpu/ibmnpu/relaxed_ordering_mode",
    ),
    "not read by pitcrew: settings": (
        *below("gpu", "display_mode", "display_attached", "display_active", "addressing_mode", "accounting_mode"),
        *below("gpu", "accounting_mode_buffer_size", "sparse_operation_mode", "edpp_multiplier", "power_smoothing"),
        *below("gpu/driver_model", "current_dm", "pending_dm"),
        *below("gpu/gpu_operation_mode", "current_gom", "pending_gom"),
        *below("gpu/gpu_virtualization_mode", "host_vgpu_mode", "vgpu_heterogeneous_mode"),
        *below("gpu/dram_encryption_mode", "current_dram_encryption", "pending_dram_encryption"),
        *below("gpu/power_profiles", "power_profile_requested_profiles", "power_profile_enforced_profiles"),
        *below("gpu/applications_clocks", "graphics_clock", "mem_clock"),
        *below("gpu/default_applications_clocks", "graphics_clock", "mem_clock"),
        "gpu/deferred_clocks/mem_clock",
        *below("gpu/clock_policy", "auto_boost", "auto_boost_default"),
        *below("gpu/capabilities", "egm"),
    ),
    "not read by pitcrew: health": (
        *below("gpu/gpu_reset_status", "reset_required", "drain_and_reset_recommended"),
        "gpu/pci/replay_rollover_counter",
        *below("gpu/ecc_errors/aggregate", *ECC_KINDS, "sram_threshold_exceeded"),
        *below("gpu/ecc_errors/aggregate_uncorrectable_sram_sources", "sram_l2", "sram_sm", "sram_microcontroller"),
        *below("gpu/ecc_errors/aggregate_uncorrectable_sram_sources", "sram_pcie", "sram_other"),
        *below("gpu/ecc_errors", "channel_repair_pending", "tpc_repair_pending", "unrepairable_memory"),
        "gpu/retired_pages/multiple_single_bit_retirement/retired_pagelist",
        "gpu/retired_pages/double_bit_retirement/retired_pagelist",
        *below("gpu/remapped_rows", "remapped_row_corr_inactive", "remapped_row_unc_inactive"),
        *(
            f"gpu/remapped_rows/row_remapper_histogram/row_remapper_histogram_{name}"
            for name in ("max", "high", "partial", "low", "none")
        ),
        *below("gpu/remapped_banks", "bank_remapper_active_remappings", "bank_remapper_inactive_remappings"),
        "gpu/remapped_banks/bank_remapper_pending",
        *below("gpu/remapped_banks/bank_remapper_histogram", "bank_remapper_histogram_max"),
        *below("gpu/remapped_banks/bank_remapper_histogram", "bank_remapper_histogram_none"),
        f"{MIG_XML}/ecc_error_count/volatile_count/sram_uncorrectable",
    ),
    "not read by pitcrew: memory": (
        *below("gpu/cc_protected_memory_usage", "total", "used", "free"),
        *below(f"{MIG_XML}/fb_memory_usage", "reserved", "free"),
        *below(f"{MIG_XML}/bar1_memory_usage", "total", "used", "free"),
    ),
    "not read by pitcrew: temperature, power and clocks": (
        *below("gpu/temperature", "gpu_temp_max", "gpu_temp_tlimit", "gpu_target_temperature"),
        *below("gpu/temperature", "gpu_temp_max_tlimit_threshold", "gpu_temp_slow_tlimit_threshold"),
        *below("gpu/temperature", "gpu_temp_max_gpu_tlimit_threshold", "gpu_temp_max_mem_tlimit_threshold"),
        *below("gpu/temperature", "gpu_temp_max_threshold", "gpu_temp_slow_threshold"),
        *below("gpu/temperature", "gpu_temp_max_gpu_threshold", "gpu_temp_max_mem_threshold"),
        *below(POWERS + "gpu_base_power", "current_base_power", "requested_base_power", "default_base_power"),
        POWERS + "gpu_base_power/adaptive_tgp_adjusted_base_power",
        *below("gpu/gpu_memory_power_readings", "average_power_draw", "instant_power_draw"),
        *below("gpu/module_power_readings", "average_power_draw", "instant_power_draw", *LIMITS),
        *below("gpu/module_power_readings", "min_power_limit", "max_power_limit"),
        *below("gpu/clocks", "graphics_clock", "video_clock"),
        *below("gpu/dla_clocks", "dla_cur_engine_clock", "dla_max_engine_clock"),
        "gpu/voltage/graphics_volt",
        *(
            f"gpu/clocks_event_reasons_counters/clocks_event_reasons_counters_{name}"
            for name in ("sw_power_cap", "sync_boost", "sw_therm_slowdown", "hw_therm_slowdown", "hw_power_brake")
        ),
        # Since R615; a bit of pitcrew's that has no name here fails by itself.
        "gpu/clocks_event_reasons/clocks_event_reason_board_limit",
        "gpu/clocks_event_reasons/clocks_event_reason_reliability",
    ),
    "not read by pitcrew: traffic and media engines": (
        *below("gpu/pci", "tx_util", "rx_util"),
        *below("gpu/utilization", "encoder_util", "decoder_util", "jpeg_util", "ofa_util"),
        *below("gpu/encoder_stats", "session_count", "average_fps", "average_latency"),
        *below("gpu/fbc_stats", "session_count", "average_fps", "average_latency"),
    ),
    "not read by pitcrew: of processes": (
        f"{PROCESSES_XML}/process_name",
        *below("gpu/accounted_processes/accounted_process_info", "gpu_instance_id", "compute_instance_id", "pid"),
        *below("gpu/accounted_processes/accounted_process_info", "gpu_util", "mem_util", "max_memory_usage"),
        *below("gpu/accounted_processes/accounted_process_info", "time", "is_running"),
    ),
}
