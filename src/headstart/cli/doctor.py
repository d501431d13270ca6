"""`headstart doctor`: what this machine is, what is missing on it, and how fast it is. Works (and says so) when required packages are missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from headstart.core import hardware

HELP = "python, torch, devices, memory, extras and speed of this machine, with a verdict"
EXAMPLE = "headstart doctor"
GIB = 1 << 30
MIN_PYTHON = (3, 11)
EXIT_MISSING = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    report = examine()
    print(json.dumps(report, indent=2) if args.json else "\n".join(in_words(report)))
    return 0 if report["ready"] else EXIT_MISSING


@dataclass(frozen=True)
class Requirement:
    """One package that headstart names: `minimum` is the version asked for ("" for any), `extra` the extra it belongs to ("" for required)."""

    package: str
    minimum: str
    extra: str
    installed: str | None

    @property
    def met(self) -> bool:
        return self.installed is not None and numbers(self.installed) >= numbers(self.minimum)


def examine(requirements: list[Requirement] | None = None) -> dict[str, Any]:
    """All facts, as JSON-ready values. Measures speed for about two seconds where torch is there."""
    requirements = read_requirements() if requirements is None else requirements
    missing = [requirement for requirement in requirements if not requirement.extra and not requirement.met]
    python_good = sys.version_info >= MIN_PYTHON
    report: dict[str, Any] = {
        "machine": hardware.describe(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "python_good": python_good,
        "required": [asdict(requirement) | {"met": requirement.met} for requirement in requirements if not requirement.extra],
        "extras": _extras(requirements),
        "speed": _speed(),
        "ready": python_good and not missing,
    }
    report["verdict"] = _verdict(report, missing)
    return report


def read_requirements() -> list[Requirement]:
    """What the project names in its metadata; in a checkout that was never installed, in its pyproject.toml."""
    try:
        lines = [(line, _extra_of(line)) for line in requires("headstart") or []]
    except PackageNotFoundError:
        file = Path(__file__).parents[3] / "pyproject.toml"
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}
        lines = [(line, "") for line in project.get("dependencies", [])]
        lines += [(line, extra) for extra, group in project.get("optional-dependencies", {}).items() for line in group]
    return [parse_requirement(line, extra) for line, extra in lines if not line.startswith("headstart")]


def parse_requirement(line: str, extra: str) -> Requirement:
    """A requirement of the forms 'name' and 'name>=version', which are all that the project uses."""
    match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=\s*([0-9.]+))?", line)
    assert match is not None, line
    package, minimum = match[1], match[2] or ""
    try:
        return Requirement(package, minimum, extra, version(package))
    except PackageNotFoundError:
        return Requirement(package, minimum, extra, None)


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: '2.13.0+cpu' -> (2, 13, 0)."""
    leading = re.match(r"[0-9.]*", text)
    return tuple(int(part) for part in leading[0].split(".") if part) if leading else ()


def _extra_of(line: str) -> str:
    match = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
    return match[1] if match else ""


def _extras(requirements: list[Requirement]) -> dict[str, dict[str, Any]]:
    """For each extra: what is missing, and the line that installs it ("" when nothing is)."""
    extras: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(requirement.extra for requirement in requirements if requirement.extra):
        missing = [requirement.package for requirement in requirements if requirement.extra == name and not requirement.met]
        extras[name] = {"missing": missing, "install": f"pip install 'headstart[{name}]'" if missing else ""}
    return extras


def _speed() -> dict[str, Any] | None:
    """Matrix-product peaks of the best device in FLOP/s, fp32 and bf16, one second each. None without torch."""
    try:
        import torch
    except ImportError:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = {name: hardware.matmul_flops(device, dtype, seconds=1.0) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    return {"device": device, "fp32_flops": rates["fp32"], "bf16_flops": rates["bf16"]}


def _verdict(report: dict[str, Any], missing: list[Requirement]) -> str:
    machine, speed = report["machine"], report["speed"]
    if not report["python_good"]:
        return f"Not ready: Python {'.'.join(map(str, MIN_PYTHON))} or newer is needed."
    if missing:
        wanted = " ".join(f"'{entry.package}{'>=' if entry.minimum else ''}{entry.minimum}'" for entry in missing)
        return f"Not ready: {len(missing)} required package{'s' if len(missing) > 1 else ''} missing or too old. Install: pip install {wanted}"
    if speed is None:
        return "Not ready: torch is there but cannot be imported; run python -c 'import torch' to see why."
    warnings = []
    memory = machine["memory_available_bytes"]
    if memory is not None and memory < 4 * GIB:
        warnings.append(f"only {memory / GIB:.1f} GiB of memory are free")
    if report["disk_free_bytes"] < 5 * GIB:
        warnings.append(f"only {report['disk_free_bytes'] / GIB:.1f} GiB of disk are free here")
    if report["load_average"] is not None and report["load_average"] > 0.7 * machine["cores"]:
        warnings.append(f"other processes keep the cores busy (load {report['load_average']:.1f})")
    caution = f" But {', and '.join(warnings)}." if warnings else ""
    if machine["devices"]:
        names = ", ".join(device["name"] for device in machine["devices"])
        return f"Ready: {names}. The presets small and base are within reach.{caution}"
    core_count = f"{machine['cores']} CPU core{'s' if machine['cores'] > 1 else ''}"
    return f"Ready for the tiny presets and the cpu claims on {core_count}; larger presets need a GPU.{caution}"


def in_words(report: dict[str, Any]) -> list[str]:
    """The report as lines for a person."""
    machine, speed = report["machine"], report["speed"]
    lines = [f"{'python':<9}{machine['python']}" + ("" if report["python_good"] else f"  TOO OLD (needs {'.'.join(map(str, MIN_PYTHON))})")]
    for package in report["required"]:
        too_old = f"  TOO OLD (needs {package['minimum']})" if package["installed"] and not package["met"] else ""
        lines.append(f"  {package['package']:<15}{package['installed'] or 'MISSING'}{too_old}")
    flags = f" ({' '.join(machine['cpu_flags'])})" if machine["cpu_flags"] else ""
    load = "" if report["load_average"] is None else f", load {report['load_average']:.1f}"
    lines.append(f"{'cpu':<9}{machine['cores']} cores, {machine['cpu']}{flags}{load}")
    if machine["memory_bytes"] is not None:
        lines.append(f"{'memory':<9}{machine['memory_available_bytes'] / GIB:.1f} GiB free of {machine['memory_bytes'] / GIB:.1f}")
    lines.append(f"{'disk':<9}{report['disk_free_bytes'] / GIB:.1f} GiB free in this folder")
    for device in machine["devices"]:
        lines.append(f"{'gpu':<9}{device['name']}, {device['memory_bytes'] / GIB:.0f} GiB, compute capability {device['compute_capability']}")
    if not machine["devices"]:
        lines.append(f"{'gpu':<9}none that torch can use")
    if speed is not None:
        fp32, bf16 = speed["fp32_flops"], speed["bf16_flops"]
        lines.append(f"{'speed':<9}{_rate(fp32)} fp32, {_rate(bf16)} bf16 ({bf16 / fp32:.1f} x) in matrix products on {speed['device']}")
    for name, extra in report["extras"].items():
        state = f"missing {', '.join(extra['missing'])}: {extra['install']}" if extra["missing"] else "complete"
        lines.append(f"{'extra':<9}{name}: {state}")
    return [*lines, "", report["verdict"]]


def _rate(flops: float) -> str:
    return f"{flops / 1e12:.1f} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.0f} GFLOP/s"
