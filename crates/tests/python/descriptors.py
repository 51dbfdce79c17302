#!/usr/bin/env python3
"""Runs a program in a terminal of 80x24, ends it with `q`, and counts its descriptors of the NVIDIA driver.

    descriptors.py [--device BEGINNING] PROGRAM ARGUMENT...

The driver's are those whose path begins with `/dev/nvidia`, or with what `--device` says.
Says how many it held while it ran and how many processes hold some that did not before. Ends with 0 where it held some
and left none, 1 where it held none, left some or had to be killed, 2 where it could not be run.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from typing import List, Optional, Set, Tuple


def held_by(pid: str, device: str) -> int:
    """The driver's descriptors in one process; what may not be looked at counts as none."""
    count = 0
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return 0
    for name in names:
        try:
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith(device)
        except OSError:
            pass
    return count


def holders(device: str) -> Set[str]:
    return {pid for pid in os.listdir("/proc") if pid.isdigit() and held_by(pid, device)}


def ended(pid: int) -> Optional[int]:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def drain(terminal: int, seconds: float) -> None:
    """Reads what the program draws, or it would wait for us."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                if not os.read(terminal, 65536):
                    return
            except OSError:
                return


def watch(pid: int, terminal: int, device: str, seconds: float, until_held: bool) -> Tuple[int, Optional[int]]:
    """The most descriptors that were seen, and the exit status of a program that has ended."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        drain(terminal, 0.1)
        most = max(most, held_by(str(pid), device))
        status = ended(pid)
        if status is not None or (until_held and most):
            return most, status
    return most, None


def main(command: List[str]) -> int:
    device = "/dev/nvidia"
    if command[:1] == ["--device"]:
        device, command = "".join(command[1:2]), command[2:]
    if not device or not command:
        print(__doc__, file=sys.stderr)
        return 2
    before = holders(device)
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    most, status = watch(pid, terminal, device, 10, until_held=True)
    how = "ended by itself"
    # First as a person would, last as nobody should have to.
    for name, end in (("q", lambda: os.write(terminal, b"q")), ("SIGTERM", lambda: os.kill(pid, signal.SIGTERM))):
        if status is None:
            how = f"ended by {name}"
            end()
            status = watch(pid, terminal, device, 5, until_held=False)[1]
    if status is None:
        how = "killed"
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = holders(device) - before
    print(f"held {most} descriptors of the driver, {how} with {status}, {len(left)} processes hold some that did not")
    if status == 127:
        return 2
    return 0 if most and not left and how == "ended by q" and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
