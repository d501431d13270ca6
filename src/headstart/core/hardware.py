"""What this machine is and how fast it multiplies: the facts that `doctor` prints and that every run records.

Cores and memory are those that this process may use: a container's limits count, not the host's size. torch is imported only where a device
is asked about, so the rest works (and `doctor` can say so) when it is missing.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
"""The instruction sets that decide how fast matrix products are (x86 and Arm names of /proc/cpuinfo)."""

LONG_PRODUCT_S = 0.05  # from here on a product of twice the size would take too long for a quick test


def cores() -> int:
    """CPU cores that this process may use: affinity mask, and the CPU quota of its control groups rounded up. At least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [affinity, *(_quota_v2(folder) for folder in _cgroup_folders("")), *(_quota_v1(folder) for folder in _cgroup_folders("cpu"))]
    return max(1, min(quota for quota in quotas if quota is not None))


@functools.cache
def memory_total() -> int | None:
    """Bytes of main memory that this process may use: the machine's, or the smallest limit of its control groups. None without psutil. Asked once a
    process: readers ask for each of their files, and one answer takes longer than to read a small file."""
    machine = _virtual_memory()
    limits = [limit for limit, _ in _memory_groups()]
    return None if machine is None else min([machine.total, *limits])


def memory_available() -> int | None:
    """Bytes that can still be allocated: free on the machine, and left below each limit. None without psutil."""
    machine = _virtual_memory()
    left = [limit - used for limit, used in _memory_groups()]
    return None if machine is None else max(0, min([machine.available, *left]))


def peak_resident_bytes(process: int | None = None) -> int | None:
    """The most main memory that this process (or that with such a number) had at once, in bytes. None where nobody says.

    Linux: VmHWM, of the program that runs now. `ru_maxrss` would also count the program that started it, whose size a child inherits.
    """
    status = _read(Path(f"/proc/{process or 'self'}/status"))
    if status is not None:
        return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)
    if process is not None or os.name != "posix":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


@functools.cache
def cpu_name() -> str:
    """Model name of the CPU, as the kernel gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_vendor() -> str:
    """Maker of the CPU as it names itself, "GenuineIntel" or "AuthenticAMD"; empty where the kernel does not say (Arm, macOS, Windows)."""
    return _cpuinfo().get("vendor_id", "")


def cpu_flags() -> list[str]:
    """Those of CPU_FLAGS that this CPU has. Empty where the kernel does not say (macOS, Windows)."""
    info = _cpuinfo()
    present = set((info.get("flags") or info.get("Features") or "").split())
    return [flag for flag in CPU_FLAGS if flag in present]


def cuda_devices() -> list[dict[str, Any]]:
    """One entry per visible CUDA device: name, memory_bytes, compute_capability. Empty without torch or without a device."""
    try:
        import torch
    except ImportError:
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": p.name, "memory_bytes": p.total_memory, "compute_capability": f"{p.major}.{p.minor}"} for p in properties]


def describe() -> dict[str, Any]:
    """The machine as a JSON-ready dictionary; a part of every `run.json`. Sizes in bytes; None where a fact cannot be had."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": cores(),
        "memory_bytes": memory_total(),
        "memory_available_bytes": memory_available(),
        "cuda": _cuda_version(),
        "devices": cuda_devices(),
    }


def matmul_flops(device: str | torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measured peak rate of a square matrix product, in FLOP/s (2 n^3 a product): the denominator of every utilisation figure.

    The best single product counts, so that a short disturbance does not. n doubles from 256 while that raises the rate, to 8192 at most,
    which fills any present GPU: on a busy machine threads wait for each other about 8 ms a product, which hides behind large products only.

    Args:
        device: "cpu", "cuda", "cuda:1", ...
        dtype: of both factors and of the product.
        seconds: how long to measure; a busy or slow machine may take a second longer.
    """
    import torch

    device = torch.device(device)
    wait: Callable[[], None] = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)

    def rate(factor: torch.Tensor) -> float:
        wait()
        start = time.perf_counter()
        factor @ factor
        wait()
        return flops_of(factor) / (time.perf_counter() - start)

    def flops_of(factor: torch.Tensor) -> float:
        return 2.0 * len(factor) ** 3

    best = 0.0
    random = torch.Generator().manual_seed(0)
    stop = time.perf_counter() + seconds
    for n in (256, 512, 1024, 2048, 4096, 8192):
        factor = torch.randn(256, 256, generator=random).to(device, dtype).repeat(n // 256, n // 256)  # constants cost a GPU less power: 13 % faster
        rate(factor)  # the first product of a size allocates and chooses a kernel
        fastest = max(rate(factor) for _ in range(3))
        enough = fastest < 1.1 * best or flops_of(factor) / fastest > LONG_PRODUCT_S
        best = max(best, fastest)
        if enough:
            break
    while time.perf_counter() < stop:
        best = max(best, rate(factor))
    return best


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cuda_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.version.cuda


def _virtual_memory() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory()


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    text = _read(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """This process's control group and all above it, for a version-1 controller ("cpu", "memory") or for version 2 ("")."""
    for line in (_read(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            root = Path("/sys/fs/cgroup", controller)
            group = root / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(root))


def _quota_v2(folder: Path) -> int | None:
    """cpu.max holds 'quota period' in microseconds, or 'max period'."""
    fields = (_read(folder / "cpu.max") or "max").split()
    return None if fields[0] == "max" else -(-int(fields[0]) // int(fields[1]))


def _quota_v1(folder: Path) -> int | None:
    quota, period = (int(_read(folder / f"cpu.cfs_{name}_us") or -1) for name in ("quota", "period"))
    return None if quota <= 0 or period <= 0 else -(-quota // period)


def _memory_groups() -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of each control group that has a limit. File cache counts as used only as far as it cannot be dropped."""
    sources = [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ]
    for controller, limit_file, used_file, cache_key in sources:
        for folder in _cgroup_folders(controller):
            limit = (_read(folder / limit_file) or "max").strip()
            if limit == "max":
                continue
            statistics = dict(line.split() for line in (_read(folder / "memory.stat") or "").splitlines())
            yield int(limit), int(_read(folder / used_file) or 0) - int(statistics.get(cache_key, 0))
