#!/usr/bin/env python3
"""What PyTorch reaches on the card that a report of `pitcrew prove` is about, beside the report's figures.

    pitcrew prove --gpu 0 -o json > report.json; compare.py report.json

Products by cuBLAS of 8192 x 8192 x 8192, of the operands that a proof has (uniform integers of 7 bits, fp8: -2 to 2), a large
copy on the device, copies of pinned memory over PCIe, and what the driver says each program draws. Needs PyTorch with CUDA
and `nvidia-smi`. Run it right after the proof: a card is as fast as its temperature lets it be.
"""

import json
import statistics
import subprocess
import sys
import threading
import time

import torch

SIZE = 8192
SECONDS = 3.0


class Meter:
    """The driver's own instant readings of power and clock, ten times a second."""

    def __init__(self):
        query = "--query-gpu=power.draw.instant,clocks.sm"
        command = ["nvidia-smi", "-i", "0", query, "--format=csv,noheader,nounits", "-lms", "100"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.samples = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            watts, clock = (float(part) for part in line.split(","))
            self.samples.append((time.monotonic(), watts, clock))

    def since(self, start):
        """Median power in W, highest in W, and median clock in MHz."""
        seen = [(watts, clock) for at, watts, clock in self.samples if at >= start]
        if not seen:
            return 0, 0, 0
        watts, clocks = zip(*seen)
        return statistics.median(watts), max(watts), statistics.median(clocks)


def rate(work, call, meter, seconds=SECONDS):
    """Median of `work` per second over the second half of the time, with the power drawn meanwhile."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    count = max(1, int(100 / max(begin.elapsed_time(end), 1e-3)))
    start, half, rates = time.monotonic(), None, []
    while time.monotonic() < start + seconds:
        begin.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        if time.monotonic() > start + seconds / 2:
            half = half or time.monotonic()
            rates.append(work * count / (begin.elapsed_time(end) / 1e3))
    return statistics.median(rates), meter.since(half)


def integers(dtype, limit):
    """A matrix of uniform integers."""
    values = torch.randint(-limit, limit + 1, (SIZE, SIZE), device="cuda", dtype=torch.int32)
    return values.to(torch.float32).to(dtype) if dtype.itemsize == 1 and dtype.is_floating_point else values.to(dtype)


def products(meter):
    """Rates of cuBLAS by format."""
    work = 2 * SIZE**3
    for name, dtype in [
        ("bf16", torch.bfloat16), ("fp16", torch.float16), ("tf32", torch.float32), ("fp8", torch.float8_e4m3fn),
        ("int8", torch.int8), ("fp64", torch.float64), ("fp32", torch.float32),
    ]:  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        limit = 2 if name == "fp8" else 127
        a, b = integers(dtype, limit), integers(dtype, limit).T
        if name == "fp8":
            one = torch.ones((), device="cuda")
            call = lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # noqa: E731
        elif name == "int8":
            call = lambda: torch._int_mm(a, b)  # noqa: E731
        else:
            c = torch.empty((SIZE, SIZE), device="cuda", dtype=dtype)
            call = lambda: torch.mm(a, b, out=c)  # noqa: E731
        yield name, *rate(work, call, meter)


def burns(meter):
    """Power of loops as gpu-burn has them: cuBLAS on uniform random numbers."""
    for name, dtype, tf32 in [
        ("gpu-burn: SGEMM", torch.float32, False), ("gpu-burn -tc: tf32", torch.float32, True),
        ("gpu-burn -d: DGEMM", torch.float64, False), ("cuBLAS bf16, normal", torch.bfloat16, False),
    ]:  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = tf32
        make = torch.randn if "normal" in name else torch.rand
        a, b = (make((SIZE, SIZE), device="cuda").to(dtype) for _ in range(2))
        c = torch.empty_like(a)
        yield name, *rate(2 * SIZE**3, lambda: torch.mm(a, b, out=c), meter, 6.0)


def copies(meter):
    """Copies in GB/s: on the device (read and written), and over PCIe."""
    here, there = (torch.empty(4 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    yield "copy", *rate(2 * here.numel(), lambda: there.copy_(here), meter)
    pinned = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    part = here[: pinned.numel()]
    yield "host-to-device", *rate(pinned.numel(), lambda: part.copy_(pinned, non_blocking=True), meter)
    yield "device-to-host", *rate(pinned.numel(), lambda: pinned.copy_(part, non_blocking=True), meter)


def ours(path):
    """Median rates of a report's phases, and their power in W."""
    with open(path, encoding="utf-8") as file:
        device = json.load(file)["evidence"]["devices"][0]
    found = {}
    for phase in device["phases"]:
        if phase.get("rate"):
            name = phase.get("format") if phase["kind"] == "gemm" else f"{phase['kind']} {phase.get('format') or ''}".strip()
            found[name] = phase["rate"]["p50"], phase.get("power_w", 0.0), phase.get("variant") or ""
    return found


def main():
    """Measures, and prints a table."""
    report = ours(sys.argv[1]) if len(sys.argv) > 1 else {}
    meter = Meter()
    print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"{'':22} {'pitcrew':>9} {'PyTorch':>9} {'':>7} {'W':>7} {'(max)':>7} {'MHz':>6}")
    for scale, rows in [(1e12, products), (1e9, copies), (1e12, burns)]:
        for name, value, (watts, highest, clock) in rows(meter):
            mine = report.pop(name, (0.0, 0.0, ""))[0]
            part = f"{mine / (value / scale):.1%}" if mine else ""
            print(f"{name:22} {mine:9.1f} {value / scale:9.1f} {part:>7} {watts:7.0f} {highest:7.0f} {clock:6.0f}", flush=True)
    for name, (mine, watts, variant) in report.items():
        print(f"{name:22} {mine:9.1f} {'':9} {'':7} {watts:7.0f} {variant:>15}")
    meter.process.kill()


if __name__ == "__main__":
    main()
