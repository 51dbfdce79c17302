#!/usr/bin/env python3
"""Does `pitcrew gpus -o json` agree with `nvidia-smi -q -x`, on every field that both have?

    smi_compare.py --run PITCREW                            runs nvidia-smi, pitcrew and nvidia-smi again
    smi_compare.py --smi FILE [--smi AFTER] --pitcrew FILE  compares what was written down

The fields, their tolerances and what only one side says are in `smi_fields.py`. A field of either side that is in none
of its lists fails, and so does a run that compares less than the baseline names. Values that move are taken twice from
nvidia-smi, before and after pitcrew, and pitcrew's must lie between.

Ends with 0 where they agree, 1 where they don't, 2 where there was nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from enum import Enum
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from smi_fields import (
    ABSENT_TEXTS,
    EXACT,
    FAILED_TEXTS,
    FIELDS,
    MEMBERS,
    PITCREW_ONLY,
    POSITION,
    REASONS,
    SMI_ONLY,
    Field,
    Members,
    Tolerance,
    address,
    plain_kinds,
)

BASELINE = Path(__file__).resolve().parent.parent / "fixtures" / "smi-compare-baseline.json"


class Trouble(Exception):
    """There is nothing to compare."""


class Without(Enum):
    """Why there is no value."""

    #: No such thing on this card.
    ABSENT = "absent"
    #: It should have been there and could not be read. The reasons of the two sides are not compared.
    FAILED = "unread"
    #: No element for it in nvidia-smi's output at all.
    MISSING = "missing"


ABSENT, FAILED, MISSING = Without.ABSENT, Without.FAILED, Without.MISSING


class Row(NamedTuple):
    """One comparison."""

    field: str
    where: str
    smi: str
    pitcrew: str
    tolerance: Tolerance
    #: `ok`, or what is wrong.
    verdict: str
    by_value: bool

    @property
    def agrees(self) -> bool:
        return self.verdict == "ok"


# nvidia-smi's side.


def plain(text: Optional[str]) -> str:
    """An element's text, without the brackets that some drivers put around what is no value."""
    text = (text or "").strip()
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def leaves(element: ElementTree.Element, path: str) -> Iterator[Tuple[str, str]]:
    """Every element without children and every attribute, with its path."""
    for name, value in element.attrib.items():
        yield f"{path}@{name}", value
    if len(element) == 0:
        yield path, plain(element.text)
    for child in element:
        yield from leaves(child, f"{path}/{child.tag}" if path else child.tag)


class Smi:
    """One `nvidia-smi -q -x`."""

    def __init__(self, text: str, name: str) -> None:
        try:
            self.root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise Trouble(f"{name} is not XML: {error}") from error
        if self.root.tag != "nvidia_smi_log":
            raise Trouble(f"{name} is not from `nvidia-smi -q -x`: it begins with <{self.root.tag}>")
        self.top = {path: value for path, value in leaves(self.root, "") if not path.startswith("gpu/")}
        self.gpus: Dict[str, ElementTree.Element] = {}
        self.position: Dict[str, int] = {}
        for position, gpu in enumerate(self.root.findall("gpu")):
            try:
                where = address(gpu.get("id", ""))
            except ValueError as error:
                raise Trouble(f"{name}: {error}") from error
            self.gpus[where] = gpu
            self.position[where] = position

    def texts(self, where: str) -> Dict[str, str]:
        """The leaves of a GPU."""
        found: Dict[str, str] = {}
        if where in self.gpus:
            found[POSITION] = str(self.position[where])
            for path, value in leaves(self.gpus[where], "gpu"):
                found.setdefault(path, value)
        return found

    def members(self, where: str, list_of: Members) -> List[Dict[str, str]]:
        """The leaves of each element of one of a GPU's lists."""
        if where not in self.gpus:
            return []
        path = list_of.smi.split("/", 1)[1]
        return [dict(leaves(element, list_of.smi)) for element in self.gpus[where].findall(path)]


def read_one(text: str, field: Field) -> Any:
    # `None` is a value to some.
    try:
        return field.read(text)
    except ValueError:
        if text in ABSENT_TEXTS:
            return ABSENT
        if text in FAILED_TEXTS:
            return FAILED
        raise


def from_smi(texts: Dict[str, str], field: Field) -> Tuple[Any, str]:
    """The value, and the text that it was read from."""
    outcome: Tuple[Any, str] = (MISSING, "")
    for paths in field.smi:
        shown, values = [], []
        for path in paths:
            text = texts.get(path)
            if text is None:
                # A whole section can be `N/A`.
                parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
                text = next((texts[parent] for parent in parents if parent in texts), None)
                if text is None or text not in ABSENT_TEXTS + FAILED_TEXTS:
                    continue
            shown.append(text)
            values.append(read_one(text, field))
        if not values:
            continue
        if any(value is FAILED for value in values):
            return FAILED, " + ".join(shown)
        known = [value for value in values if value is not ABSENT]
        if known:
            return (sum(known) if len(paths) > 1 else known[0]), " + ".join(shown)
        if outcome[0] is MISSING:
            outcome = (ABSENT, shown[0])
    return outcome


# pitcrew's side.


def from_pitcrew(document: Any, path: str, field: Field, unread: List[str]) -> Any:
    """What `path` below `document` leads to, or why there is none."""
    value = document
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return FAILED if path.split(".")[0] in unread else ABSENT
        value = value[name]
    return field.part(value)


def unread_fields(document: Dict[str, Any]) -> List[str]:
    return [entry["field"] for entry in document.get("unread", [])]


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """Every path of a JSON document that ends in a value; an empty list or object is one."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from paths_of(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from paths_of(inner, f"{path}[]")
    else:
        yield path


# The comparison.


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def within(ours: Any, theirs: List[Any], field: Field) -> bool:
    tolerance = field.tolerance
    if not all(is_number(value) for value in [ours, *theirs]):
        return ours in theirs if tolerance.moving else all(ours == value for value in theirs)
    margin = max(tolerance.margin, tolerance.share * max(abs(value) for value in theirs))
    if tolerance.moving:
        return min(theirs) - margin <= ours <= max(theirs) + margin
    return all(abs(ours - value) <= margin for value in theirs)


def show(value: Any) -> str:
    if isinstance(value, Without):
        return value.value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, frozenset):
        return "+".join(sorted(value))
    return str(value)


def compare_field(field: Field, where: str, texts: List[Dict[str, str]], ours: Any) -> Optional[Row]:
    """One field on one thing; none where nvidia-smi doesn't write it."""
    try:
        read = [from_smi(each, field) for each in texts]
    except ValueError as error:
        shown = " -> ".join(dict.fromkeys(each.get(field.smi[0][0], "") for each in texts))
        return Row(field.name, where, shown, show(ours), field.tolerance, f"can't be read: {error}", False)
    read = [(value, text) for value, text in read if value is not MISSING]
    if not read:
        return None
    theirs = [value for value, _ in read]
    by_value = not any(isinstance(value, Without) for value in [ours, *theirs])
    verdict = "ok" if within(ours, theirs, field) else "DIFFERS"
    shown = " -> ".join(dict.fromkeys(text for _, text in read))
    return Row(field.name, where, shown, show(ours), field.tolerance, verdict, by_value)


def local(path: str, parent: str) -> str:
    return path[len(parent) + 3 :]


def key_of(texts: Dict[str, str], list_of: Members) -> Tuple[Any, ...]:
    values = (from_smi(texts, field)[0] for field in list_of.key)
    return tuple(None if isinstance(value, Without) else value for value in values)


def merged(members: List[Dict[str, Any]], list_of: Members) -> Dict[Tuple[Any, ...], Dict[str, Any]]:
    """pitcrew's elements by key. A process that computes and draws is listed once for each, as NVML does."""
    found: Dict[Tuple[Any, ...], Dict[str, Any]] = {}
    for member in members:
        key = tuple(member.get(local(field.pitcrew, list_of.pitcrew)) for field in list_of.key)
        if "kind" in member:
            kinds = found.get(key, {}).get("kind", frozenset()) | {member["kind"]}
            member = {**found.get(key, {}), **member, "kind": plain_kinds(kinds)}
        found[key] = member
    return found


def compare_members(list_of: Members, gpu: Dict[str, Any], where: str, smis: List[Smi]) -> Iterator[Row]:
    """The elements of one of a GPU's lists, paired by key."""
    name = list_of.pitcrew.split(".")[-1]
    ours = merged(gpu.get(name, []), list_of)
    theirs = [{key_of(texts, list_of): texts for texts in smi.members(where, list_of)} for smi in smis]
    if not ours and not any(theirs):
        return
    moving = list_of.tolerance.moving
    always = set(theirs[0]).intersection(*theirs)
    ever = set().union(*theirs)
    fine = always <= set(ours) <= ever if moving else all(set(ours) == set(each) for each in theirs)
    verdict = "ok" if fine else "DIFFERS"

    def shown(keys: Any) -> str:
        return " ".join(sorted("/".join("-" if part is None else str(part) for part in key) for key in keys)) or "none"

    smi_text = " -> ".join(dict.fromkeys(shown(each) for each in theirs))
    for field in list_of.key:
        yield Row(field.name, where, smi_text, shown(ours), list_of.tolerance, verdict, True)
    for key in sorted(set(ours) & ever, key=str):
        texts = [each[key] for each in theirs if key in each]
        for field in list_of.fields:
            value = from_pitcrew(ours[key], local(field.pitcrew, list_of.pitcrew), field, [])
            row = compare_field(field, f"{where} {shown([key])}", texts, value)
            if row:
                yield row


def compare(smis: List[Smi], report: Dict[str, Any]) -> List[Row]:
    """Every field of the table, on everything that there is."""
    rows: List[Optional[Row]] = []
    of_gpus = [field for field in FIELDS if field.pitcrew.startswith("gpus[].")]
    for field in FIELDS:
        if field not in of_gpus:
            section, path = report, field.pitcrew
            if path.startswith("driver."):
                section, path = report.get("driver", {}), path[len("driver.") :]
            ours = from_pitcrew(section, path, field, unread_fields(section))
            rows.append(compare_field(field, "", [smi.top for smi in smis], ours))

    gpus = {gpu["pci"]["address"]: gpu for gpu in report["gpus"]}
    everywhere = sorted({*gpus, *(where for smi in smis for where in smi.gpus)})
    for where in everywhere:
        gpu = gpus.get(where)
        if gpu is None or not all(where in smi.gpus for smi in smis):
            seen = " -> ".join("there" if where in smi.gpus else "none" for smi in smis)
            rows.append(Row("gpus[]", where, seen, "there" if gpu else "none", EXACT, "DIFFERS", True))
            continue
        texts, unread = [smi.texts(where) for smi in smis], unread_fields(gpu)
        for field in of_gpus:
            ours = from_pitcrew(gpu, field.pitcrew[len("gpus[].") :], field, unread)
            rows.append(compare_field(field, where, texts, ours))
        nameless = gpu.get("clocks_event_reasons", 0) & ~sum(REASONS.values())
        if nameless:
            what = "gpus[].clocks_event_reasons (bits without a name)"
            rows.append(Row(what, where, "not listed", f"{nameless:#x}", EXACT, "DIFFERS", True))
        for list_of in MEMBERS:
            rows.extend(compare_members(list_of, gpu, where, smis))
    return [row for row in rows if row]


def conditional() -> List[Field]:
    """Fields of things that a machine may lack at the moment."""
    return [field for list_of in MEMBERS for field in (*list_of.key, *list_of.fields)]


def unlisted(smis: List[Smi], report: Dict[str, Any]) -> List[str]:
    """What either side says and no list names."""
    both = [*FIELDS, *conditional()]
    smi_known = {path for field in both for paths in field.smi for path in paths}
    smi_known.update(path for paths in SMI_ONLY.values() for path in paths)
    ours_known = {field.pitcrew for field in both}
    ours_known.update(path for paths in PITCREW_ONLY.values() for path in paths)
    below = tuple(path[:-1] for path in ours_known if path.endswith(".*"))

    problems = []
    empty = ABSENT_TEXTS + FAILED_TEXTS
    for path, value in dict(leaf for smi in smis for leaf in leaves(smi.root, "")).items():
        section = value in empty and any(known.startswith(f"{path}/") for known in smi_known)
        if path not in smi_known and not section:
            problems.append(f"unlisted field of nvidia-smi: {path} (`{value}`)")
    for path in sorted(set(paths_of(report))):
        # An empty list of what would be listed.
        section = any(known.startswith((f"{path}.", f"{path}[]")) for known in ours_known)
        if path not in ours_known and not path.startswith(below) and not section:
            problems.append(f"unlisted field of pitcrew: {path}")
    return problems


# The baseline.


def compared_fields(rows: List[Row]) -> List[str]:
    names = {row.field for row in rows}
    return [field.name for field in FIELDS if field.name in names]


def check_baseline(rows: List[Row], path: Path) -> List[str]:
    try:
        baseline = json.loads(path.read_text(encoding="utf-8"))
        before, when_there = baseline["compared"], baseline["compared_when_there"]
        count = baseline["count"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(f"the baseline {path} can't be read: {error!r}; `--update` writes it") from error
    problems = []
    now = compared_fields(rows)
    if len(now) < max(count, len(before)) or set(before) - set(now):
        lost = ", ".join(sorted(set(before) - set(now))) or "none by name"
        problems.append(f"compares {len(now)} fields, fewer than the baseline's {count}; no longer compared: {lost}")
    lost = sorted(set(when_there) - {field.name for field in conditional()})
    if lost:
        problems.append(f"no longer in the table: {', '.join(lost)}")
    return problems


def write_baseline(rows: List[Row], path: Path) -> None:
    compared = compared_fields(rows)
    when_there = [field.name for field in conditional()]
    baseline = {"count": len(compared), "compared": compared, "compared_when_there": when_there}
    path.write_text(json.dumps(baseline, indent=2) + "\n", encoding="utf-8")


# Input and output.


def read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Trouble(f"{path} can't be read: {error.strerror}") from error


def parse_report(text: str, name: str) -> Dict[str, Any]:
    try:
        report = json.loads(text)
    except ValueError as error:
        raise Trouble(f"{name} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("gpus"), list):
        raise Trouble(f"{name} is not from `pitcrew gpus -o json`: it has no list `gpus`")
    return report


def output_of(command: List[str], codes: Tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Trouble(f"`{' '.join(command)}` did not run: {error}") from error
    if done.returncode not in codes:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Trouble(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def take(options: argparse.Namespace) -> Tuple[List[Smi], Dict[str, Any]]:
    """Runs nvidia-smi, pitcrew and nvidia-smi, within a minute."""
    smi = [options.nvidia_smi, "-q", "-x"]
    start = time.monotonic()
    # pitcrew ends with 1 or 2 where it finds something wrong with a GPU, and says what all the same.
    texts = {
        "before.xml": output_of(smi),
        "pitcrew.json": output_of([options.run, "gpus", "-o", "json"], (0, 1, 2)),
        "after.xml": output_of(smi),
    }
    took = time.monotonic() - start
    if options.save:
        Path(options.save).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (Path(options.save) / name).write_text(text, encoding="utf-8")
    if took > 60:
        raise Trouble(f"the three took {took:.0f} s: values a minute apart can't be compared")
    smis = [Smi(texts[name], f"nvidia-smi's {name}") for name in ("before.xml", "after.xml")]
    report = parse_report(texts["pitcrew.json"], "what pitcrew wrote")
    if "scenario" in report.get("source", {}):
        raise Trouble("pitcrew found no GPU here and shows imaginary ones")
    return smis, report


def one_sided(smis: List[Smi], report: Dict[str, Any]) -> Iterator[str]:
    """What only one of them says here, by reason."""
    theirs = {path for smi in smis for path, _ in leaves(smi.root, "")}
    ours = set(paths_of(report))
    for title, lists, there in (("nvidia-smi", SMI_ONLY, theirs), ("pitcrew", PITCREW_ONLY, ours)):
        for why, paths in lists.items():
            names = [path for path in paths if any(fits(path, each) for each in there)]
            if names:
                text = f"only {title}, {why} ({len(names)}): {', '.join(names)}"
                yield from textwrap.wrap(text, 120, subsequent_indent="    ", break_on_hyphens=False)


def fits(listed: str, path: str) -> bool:
    """Whether a path is what a list names; `.*` stands for everything below."""
    return path.startswith(listed[:-1]) if listed.endswith(".*") else path == listed


def table(rows: List[Row]) -> Iterator[str]:
    gpus = {row.where.split(" ")[0] for row in rows if row.where}
    lines = [("field", "nvidia-smi", "pitcrew", "tolerance", "verdict")]
    for row in rows:
        where = row.where if len(gpus) > 1 else " ".join(row.where.split(" ")[1:])
        field = f"{row.field} {where}".strip()
        lines.append((field, row.smi, row.pitcrew, str(row.tolerance), row.verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[4]])


def judge(smis: List[Smi], report: Dict[str, Any], options: argparse.Namespace) -> Tuple[List[Row], List[str]]:
    rows = compare(smis, report)
    problems = unlisted(smis, report)
    if not options.update:
        problems += check_baseline(rows, Path(options.baseline))
    return rows, problems


def summary(rows: List[Row], problems: List[str]) -> str:
    compared, gpus = compared_fields(rows), {row.where.split(" ")[0] for row in rows if row.where}
    by_value = {row.field for row in rows if row.by_value} & set(compared)
    there = {row.field for row in rows} & {field.name for field in conditional()}
    counts = f"{len(compared)} fields compared on {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
    counts += f" ({len(by_value)} by value, {len(compared) - len(by_value)} without a value on both sides)"
    counts += f", and {len(there)} of MIG devices and processes"
    wrong = list(dict.fromkeys(row.field for row in rows if not row.agrees))
    if not wrong and not problems:
        return f"agrees: {counts}"
    parts = [f"{len(wrong)} differ: {', '.join(wrong)}"] if wrong else []
    return f"DISAGREES: {'; '.join(parts + problems)}; {counts}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares `pitcrew gpus -o json` with `nvidia-smi -q -x`.")
    parser.add_argument("--run", metavar="PITCREW", help="run this pitcrew, and nvidia-smi before and after it")
    parser.add_argument("--nvidia-smi", default="nvidia-smi", metavar="PATH", help="the nvidia-smi to run")
    parser.add_argument("--attempts", type=int, default=5, metavar="N", help="look again where moving values differ")
    parser.add_argument("--pause", type=float, default=2, metavar="SECONDS", help="between two looks")
    parser.add_argument("--save", metavar="DIR", help="keep what was compared here")
    parser.add_argument("--smi", action="append", metavar="FILE", help="what nvidia-smi wrote; twice: before and after")
    parser.add_argument("--pitcrew", metavar="FILE", help="what pitcrew wrote")
    parser.add_argument("--baseline", default=str(BASELINE), metavar="FILE", help="what must be compared at least")
    parser.add_argument("--update", action="store_true", help="write the baseline, where both agree")
    options = parser.parse_args()
    if bool(options.run) == bool(options.smi or options.pitcrew):
        parser.error("either --run, or --smi and --pitcrew")
    if not options.run and not (options.smi and options.pitcrew and len(options.smi) <= 2):
        parser.error("files need one or two --smi, and --pitcrew")
    if options.attempts < 1:
        parser.error("--attempts is at least 1")
    return options


def main() -> int:
    options = arguments()
    try:
        for attempt in range(1, options.attempts + 1):
            if options.run:
                # The first nvidia-smi wakes the GPU; averages and clocks need a moment to settle.
                time.sleep(options.pause if attempt > 1 else 0)
                smis, report = take(options)
            else:
                smis = [Smi(read_file(path), path) for path in options.smi]
                report = parse_report(read_file(options.pitcrew), options.pitcrew)
            rows, problems = judge(smis, report, options)
            wrong = [row for row in rows if not row.agrees]
            # A second look can't mend what stands still, nor what was written down.
            settled = any(not row.tolerance.moving for row in wrong)
            if not options.run or problems or settled or not wrong:
                break
        if options.update and not problems and not wrong:
            write_baseline(rows, Path(options.baseline))
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 2
    for line in [*table(rows), "", *one_sided(smis, report), "", *problems]:
        print(line)
    again = f" (look {attempt})" if options.run and attempt > 1 else ""
    print(summary(rows, problems) + again)
    return 1 if wrong or problems else 0


if __name__ == "__main__":
    sys.exit(main())
