#!/usr/bin/env python3
"""Makes ptx/, pack.bin and manifest.json of the sources here, with compilers of pinned versions.

    build.py --toolkits DIR [--check]

DIR holds what `pip install --no-deps --target DIR/NAME PACKAGE==VERSION` made of each line of TOOLKITS; `--fetch` does
that first. No other part of the CUDA toolkit, no CUDA header and no GPU is needed. `--check` writes nothing and fails
where what is committed differs from what is made.
"""

import argparse
import ctypes
import hashlib
import json
import pathlib
import re
import struct
import subprocess
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent

# The oldest compiler that knows an architecture: what it makes is taken by the oldest drivers.
TOOLKITS = {
    "rtc-11.8.89": "nvidia-cuda-nvrtc-cu11==11.8.89",
    "rtc-12.0.140": "nvidia-cuda-nvrtc-cu12==12.0.140",
    "as-11.8.89": "nvidia-cuda-nvcc-cu11==11.8.89",
    "as-12.0.140": "nvidia-cuda-nvcc-cu12==12.0.140",
    "as-12.9.86": "nvidia-cuda-nvcc-cu12==12.9.86",
}

# Source: PTX target, lowest PTX version that has all its instructions, front end, and assembler of each cubin.
MODULES = {
    "memory": ("sm_50", "5.0", "11.8.89"),
    "simt": ("sm_50", "5.0", "11.8.89"),
    "simt_half": ("sm_50", "5.0", "11.8.89"),
    "dp4a": ("sm_61", "5.0", "11.8.89"),
    "m8n8k4": ("sm_70", "6.4", "11.8.89"),
    "m16n8k8": ("sm_75", "6.5", "11.8.89"),
    "m16n8k16": ("sm_80", "7.0", "11.8.89"),
    "fp8": ("sm_89", "8.4", "11.8.89"),
    "fp64": ("sm_80", "7.0", "11.8.89"),
    "fp64_hopper": ("sm_90", "7.8", "11.8.89"),
    "wgmma": ("sm_90a", "8.0", "12.0.140"),
}

# Architecture of a cubin: the assembler that makes it.
ASSEMBLERS = {
    "sm_50": "11.8.89",
    "sm_60": "11.8.89",
    "sm_61": "11.8.89",
    "sm_70": "11.8.89",
    "sm_75": "11.8.89",
    "sm_80": "11.8.89",
    "sm_89": "12.9.86",
    "sm_90": "11.8.89",
    "sm_90a": "12.0.140",
    "sm_100": "12.9.86",
    "sm_120": "12.9.86",
}

# Which of them each module gets. A cubin runs on its architecture and on later ones of the same major version.
CUBINS = {
    "memory": ["sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "sm_100", "sm_120"],
    "simt": ["sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "sm_100", "sm_120"],
    "simt_half": ["sm_50", "sm_60"],
    "dp4a": ["sm_61", "sm_70", "sm_80", "sm_90", "sm_100", "sm_120"],
    "m8n8k4": ["sm_70"],
    "m16n8k8": ["sm_75"],
    "m16n8k16": ["sm_80", "sm_90", "sm_100", "sm_120"],
    "fp8": ["sm_89", "sm_120"],
    "fp64": ["sm_80", "sm_100"],
    "fp64_hopper": ["sm_90"],
    "wgmma": ["sm_90a"],
}


# Format, sum, and the instruction's K and types, with what follows its scale of the sums.
WGMMA = [
    ("BF16", "float", "k16.f32.bf16.bf16", ", 1, 1, 0, 0"),
    ("FP16", "float", "k16.f32.f16.f16", ", 1, 1, 0, 0"),
    ("TF32", "float", "k8.f32.tf32.tf32", ", 1, 1"),
    ("FP8", "float", "k32.f32.e4m3.e4m3", ", 1, 1"),
    ("INT8", "int", "k32.s32.s8.s8", ""),
]


def wgmma_instructions():
    """The header `wgmma_instructions.cuh`: an instruction with 128 sums is long, and the same for each format."""
    text = "#pragma once\n#include \"common.cuh\"\ntemplate <int FORMAT> struct Wgmma;\n"
    sums = ", ".join(f"%{index}" for index in range(128))
    for name, kind, types, scales in WGMMA:
        letter = "f" if kind == "float" else "r"
        operands = ", ".join(f'"+{letter}"(c[{index}])' for index in range(128))
        text += (
            f"template <> struct Wgmma<{name}> {{\n"
            f"static DEVICE_MEMBER void run({kind} *c, u64 a, u64 b) {{\n"
            f'asm volatile("wgmma.mma_async.sync.aligned.m64n256{types} {{{sums}}}, %128, %129, 1{scales};"\n'
            f': {operands} : "l"(a), "l"(b));\n}}\n}};\n'
        )
    return text


def front_end(toolkits, version):
    """NVRTC of a version."""
    major = version.split(".")[0]
    found = list((toolkits / f"rtc-{version}" / "nvidia" / "cuda_nvrtc" / "lib").glob(f"libnvrtc.so.{major}*"))
    return ctypes.CDLL(str(found[0]))


def compile_to_ptx(rtc, name, text, headers, target):
    """PTX of one source, as NVRTC writes it."""
    program = ctypes.c_void_p()
    names = (ctypes.c_char_p * len(headers))(*[key.encode() for key in headers])
    texts = (ctypes.c_char_p * len(headers))(*[value.encode() for value in headers.values()])
    code = rtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), f"{name}.cu".encode(), len(headers), texts, names
    )
    if code:
        sys.exit(f"{name}: nvrtcCreateProgram: {code}")
    options = [b"--gpu-architecture=compute_" + target[3:].encode(), b"--std=c++17"]
    code = rtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    rtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    rtc.nvrtcGetProgramLog(program, log)
    if code or log.value.strip():
        print(f"{name}:\n{log.value.decode()}", file=sys.stderr)
    if code:
        sys.exit(1)
    rtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    rtc.nvrtcGetPTX(program, ptx)
    return ptx.value.decode()


def lowered(ptx, version):
    """The PTX with the lowest version that its instructions need, and without the compiler's comments."""
    ptx = re.sub(r"^\.version .*$", f".version {version}", ptx, count=1, flags=re.M)
    lines = [line.rstrip() for line in ptx.splitlines()]
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("//")) + "\n"


def assemble(toolkits, version, architecture, work, source, to):
    """A cubin of a PTX file; returns what ptxas tells of registers and spills."""
    root = toolkits / f"as-{version}" / "nvidia"
    ptxas = next(path for path in root.glob("*/bin/ptxas"))
    ptxas.chmod(0o755)
    # Newer assemblers write their arguments into the cubin: always the same ones.
    done = subprocess.run(
        [ptxas.resolve(), "-O3", "-v", f"-arch={architecture}", source, "-o", to],
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
    )
    if done.returncode:
        sys.exit(f"{source} for {architecture}:\n{done.stderr}")
    return done.stderr


def packed(files):
    """One file of all: how many, then name, packed length and length of each, then what they hold, deflated."""
    index = struct.pack("<I", len(files))
    body = b""
    for name, data in files.items():
        deflated = zlib.compress(data, 9)
        index += struct.pack("<H", len(name)) + name.encode() + struct.pack("<II", len(deflated), len(data))
        body += deflated
    return index + body


def digest(data):
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def main():
    """Builds, or checks."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--toolkits", type=pathlib.Path, required=True)
    arguments.add_argument("--fetch", action="store_true")
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--only", nargs="*")
    arguments.add_argument("--verbose", action="store_true")
    options = arguments.parse_args()
    if options.fetch:
        for name, package in TOOLKITS.items():
            if not (options.toolkits / name).exists():
                pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
                subprocess.run([*pip, str(options.toolkits / name), package], check=True)
    headers = {path.name: path.read_text() for path in sorted(HERE.glob("*.cuh"))}
    manifest_path = HERE / "manifest.json"
    before = json.loads(manifest_path.read_text()) if manifest_path.exists() else {"files": {}}
    made = {}
    entries = {}
    ends = []
    for name, (target, version, rtc) in MODULES.items():
        source = HERE / f"{name}.cu"
        if options.only and name not in options.only:
            continue
        text = source.read_text()
        headers_here = dict(headers)
        if name == "wgmma":
            headers_here["wgmma_instructions.cuh"] = wgmma_instructions()
        ptx = lowered(compile_to_ptx(front_end(options.toolkits, rtc), name, text, headers_here, target), version)
        made[f"ptx/{name}.ptx"] = ptx.encode()
        entries[name] = {
            "target": target,
            "ptx": version,
            "nvrtc": rtc,
            "entries": re.findall(r"^\.visible \.entry (\w+)", ptx, flags=re.M),
        }
        (HERE / "ptx").mkdir(exist_ok=True)
        work = options.toolkits / "work"
        work.mkdir(exist_ok=True)
        (work / "in.ptx").write_text(ptx)
        for architecture in CUBINS[name]:
            told = assemble(options.toolkits, ASSEMBLERS[architecture], architecture, work, "in.ptx", "out.cubin")
            cubin = (work / "out.cubin").read_bytes()
            made[f"cubin/{name}.{architecture}.cubin"] = cubin
            spills = sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", told))
            registers = re.findall(r"Used (\d+) registers", told)
            ends.append(f"{name}.{architecture}: {len(cubin)} bytes, registers {' '.join(registers)}, spilled {spills}")
            if options.verbose:
                print(told, file=sys.stderr)
    print("\n".join(ends))
    cubins = options.toolkits / "cubin"
    cubins.mkdir(exist_ok=True)
    for key, value in made.items():
        if key.startswith("cubin/"):
            (options.toolkits / key).write_bytes(value)
        elif not options.check:
            (HERE / key).write_bytes(value)
    if options.only:
        # The others as they were made last.
        for name in MODULES:
            if name in options.only or name not in before.get("modules", {}):
                continue
            entries[name] = before["modules"][name]
            made[f"ptx/{name}.ptx"] = (HERE / "ptx" / f"{name}.ptx").read_bytes()
            for architecture in CUBINS[name]:
                key = f"cubin/{name}.{architecture}.cubin"
                made[key] = (options.toolkits / key).read_bytes()
    made = dict(sorted(made.items()))
    pack = packed(made)
    print(f"pack.bin: {len(pack)} bytes of {sum(len(data) for data in made.values())}")
    made["pack.bin"] = pack
    for path in sorted([*HERE.glob("*.cu"), *HERE.glob("*.cuh"), HERE / "build.py"]):
        made[path.name] = path.read_bytes()
    files = {key: digest(value) for key, value in sorted(made.items())}
    manifest = {"toolkits": TOOLKITS, "modules": dict(sorted(entries.items())), "files": files}
    if options.check:
        if manifest != before:
            differ = [key for key in files if before["files"].get(key) != files[key]]
            sys.exit(f"differs from what is committed: {differ or 'the manifest'}")
        return
    (HERE / "pack.bin").write_bytes(pack)
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
