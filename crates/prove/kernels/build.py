#!/usr/bin/env python3
"""Makes ptx/, pack.bin and manifest.json of the sources here, with compilers of pinned versions.

    build.py [--only MODULE...] [--check]

The compilers come from PyPI as `tools/*.txt` pins them, into the cache directory. No other part of the CUDA toolkit, no
CUDA header and no GPU is needed. `--check` writes nothing and fails where what is committed differs from what is made.
"""

import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent

TOOLS = HERE.parents[2] / "tools"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pitcrew" / "tools"

# Source: PTX target, lowest PTX version that has all its instructions, front end, and assembler of each cubin.
MODULES = {
    "memory": ("sm_50", "5.0", "11.8"),
    "simt": ("sm_50", "5.0", "11.8"),
    "simt_half": ("sm_50", "5.0", "11.8"),
    "dp4a": ("sm_61", "5.0", "11.8"),
    "m8n8k4": ("sm_70", "6.4", "11.8"),
    "m16n8k8": ("sm_75", "6.5", "11.8"),
    "m16n8k16": ("sm_80", "7.0", "11.8"),
    "fp8": ("sm_89", "8.4", "11.8"),
    "fp64": ("sm_80", "7.0", "11.8"),
    "fp64_hopper": ("sm_90", "7.8", "11.8"),
    "wgmma": ("sm_90a", "8.0", "12.0"),
    "tcgen05": ("sm_100f", "8.8", "12.9"),
    "tcgen05_int8": ("sm_100a", "8.6", "12.9"),
}

# Architecture of a cubin: the oldest assembler that knows it, whose code is taken by the oldest drivers.
ASSEMBLERS = {
    "sm_50": "11.8",
    "sm_60": "11.8",
    "sm_61": "11.8",
    "sm_70": "11.8",
    "sm_75": "11.8",
    "sm_80": "11.8",
    "sm_89": "12.9",
    "sm_90": "11.8",
    "sm_90a": "12.0",
    "sm_100": "12.9",
    "sm_100a": "12.9",
    "sm_103a": "12.9",
    "sm_120": "12.9",
}

# Newer ones whose code of the same PTX is faster: by 11 % here, measured on an H100. The drivers before 525, which don't
# take it, compile the PTX.
FASTER = {("m16n8k16", "sm_90"): "12.9"}

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
    "tcgen05": ["sm_100a", "sm_103a"],
    "tcgen05_int8": ["sm_100a"],
}


def assembler(name, architecture):
    """The version of the assembler that makes a cubin."""
    return FASTER.get((name, architecture), ASSEMBLERS[architecture])


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


def tool(name):
    """The directory of a pinned tool, fetched once."""
    requirements = TOOLS / f"{name}.txt"
    stamp = CACHE / name / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--no-compile", "--upgrade"]
        subprocess.run([*pip, "--target", CACHE / name, "-r", requirements], check=True)
        for program in (CACHE / name).glob("nvidia/*/bin/*"):
            program.chmod(0o755)
        stamp.write_text(requirements.read_text())
    return CACHE / name


def pinned(name):
    """What a tool's file pins: package and version."""
    lines = (TOOLS / f"{name}.txt").read_text().splitlines()
    return next(line.split()[0] for line in lines if line and not line.startswith("#"))


def front_end(version):
    """NVRTC of a version."""
    found = (tool(f"nvrtc-{version}") / "nvidia" / "cuda_nvrtc" / "lib").glob("libnvrtc.so.*")
    return ctypes.CDLL(str(next(found)))


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


def assemble(version, architecture, work, source, to):
    """A cubin of a PTX file; returns what ptxas tells of registers and spills."""
    ptxas = next(tool(f"ptxas-{version}").glob("nvidia/*/bin/ptxas"))
    # Newer assemblers write their arguments into the cubin: always the same ones.
    done = subprocess.run(
        [ptxas, "-O3", "-v", f"-arch={architecture}", source, "-o", to],
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


def unpacked(pack):
    """The files of what `packed` made."""
    (count,) = struct.unpack_from("<I", pack)
    at, heads = 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", pack, at)
        name = pack[at + 2 : at + 2 + length].decode()
        deflated, _ = struct.unpack_from("<II", pack, at + 2 + length)
        heads.append((name, deflated))
        at += 10 + length
    files = {}
    for name, deflated in heads:
        files[name] = zlib.decompress(pack[at : at + deflated])
        at += deflated
    return files


def digest(data):
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def module(name, headers, work):
    """PTX and cubins of one module, and what the manifest says of it."""
    target, version, release = MODULES[name]
    if name == "wgmma":
        headers = {**headers, "wgmma_instructions.cuh": wgmma_instructions()}
    ptx = compile_to_ptx(front_end(release), name, (HERE / f"{name}.cu").read_text(), headers, target)
    ptx = lowered(ptx, version)
    made = {f"ptx/{name}.ptx": ptx.encode()}
    (work / "in.ptx").write_text(ptx)
    for architecture in CUBINS[name]:
        told = assemble(assembler(name, architecture), architecture, work, "in.ptx", "out.cubin")
        cubin = (work / "out.cubin").read_bytes()
        made[f"cubin/{name}.{architecture}.cubin"] = cubin
        spills = sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", told))
        registers = " ".join(re.findall(r"Used (\d+) registers", told))
        print(f"{name}.{architecture}: {len(cubin)} bytes, registers {registers}, spilled {spills}")
        for line in told.splitlines():
            if "Performance" in line:
                print(line)
    entries = re.findall(r"^\.visible \.entry (\w+)", ptx, flags=re.M)
    return made, {"target": target, "ptx": version, "nvrtc": pinned(f"nvrtc-{release}"), "entries": entries}


def main():
    """Builds, or checks."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--only", nargs="*", default=list(MODULES), choices=list(MODULES))
    options = arguments.parse_args()
    manifest_path, pack_path = HERE / "manifest.json", HERE / "pack.bin"
    before = json.loads(manifest_path.read_text()) if manifest_path.exists() else {"files": {}, "modules": {}}
    headers = {path.name: path.read_text() for path in sorted(HERE.glob("*.cuh"))}
    made, modules = {}, {}
    with tempfile.TemporaryDirectory() as work:
        for name in options.only:
            files, modules[name] = module(name, headers, pathlib.Path(work))
            made.update(files)
    # The others as they were made last.
    for key, data in (unpacked(pack_path.read_bytes()) if len(modules) < len(MODULES) else {}).items():
        name = key.split("/")[1].split(".")[0]
        if name in MODULES and name not in modules:
            made[key] = data
    for name in MODULES:
        modules.setdefault(name, before["modules"].get(name))
    made = dict(sorted(made.items()))
    pack = packed(made)
    print(f"pack.bin: {len(pack)} bytes of {sum(len(data) for data in made.values())}")
    sources = {path.name: path.read_bytes() for path in [*HERE.glob("*.cu"), *HERE.glob("*.cuh"), HERE / "build.py"]}
    files = {key: digest(data) for key, data in sorted({**made, **sources, "pack.bin": pack}.items())}
    assemblers = {
        f"cubin/{name}.{architecture}.cubin": assembler(name, architecture)
        for name, architectures in sorted(CUBINS.items())
        for architecture in architectures
    }
    manifest = {"assemblers": assemblers, "modules": dict(sorted(modules.items())), "files": files}
    if options.check:
        if manifest != before:
            differ = [key for key in {*files, *before["files"]} if before["files"].get(key) != files.get(key)]
            sys.exit(f"differs from what is committed: {sorted(differ) or 'the manifest'}")
        return
    (HERE / "ptx").mkdir(exist_ok=True)
    for key, data in made.items():
        if key.startswith("ptx/"):
            (HERE / key).write_bytes(data)
    pack_path.write_bytes(pack)
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
