"""`profile`: where the time and the memory of a training step go, phase by phase, in a table that a person can act on.

A few real steps of the run that `pretrain` would make, with the same settings and the same decisions on precision, micro-batch and graphs; nothing is
trained and no run folder is written. torch's own profiler measures; it slows small steps down, so the time of a step is taken without it.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from headstart import methods
from headstart.core import hardware
from headstart.core.run import RunFolder
from headstart.core.words import plural
from headstart.data.loader import Loader
from headstart.engine.device import use_device
from headstart.engine.method import Phase
from headstart.engine.trainer import Trainer
from headstart.engine.update import BACKWARD, FORWARD, OPTIMIZER
from headstart.verbs._corpus import open_corpus
from headstart.verbs._exports import resolve_init
from headstart.verbs._mixture_file import with_mixture
from headstart.verbs.config import PretrainConfig, check, long_run
from headstart.verbs.pretrain import build_method, new_trial, versions

WARM_UP, TIMED, PROFILED = 4, 8, 3  # steps a phase
TOP = 12  # operations that are named
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention", ("scaled_dot_product", "flash", "fmha", "attention")),
    ("matrix products", ("mm", "matmul", "linear", "gemm", "cutlass", "xmma", "nvjet", "dot")),
    ("optimiser", ("adam", "foreach", "multi_tensor", "lamb", "sgd")),
    ("softmax, cross-entropy", ("softmax", "nll_loss", "cross_entropy", "logsumexp", "log_sigmoid")),
    ("normalisation", ("layer_norm", "rms_norm", "batch_norm", "layernorm")),
    ("look-ups, gathers", ("embedding", "index", "gather", "scatter", "take", "select", "slice", "where", "nonzero")),
    ("sorting, cumulative", ("sort", "topk", "cumsum", "searchsorted", "multinomial")),
    ("communication", ("nccl", "allreduce", "all_reduce", "all_gather", "reduce_scatter", "gloo")),
    ("copies, casts, filling", ("copy", "memcpy", "memset", "clone", "cat", "fill", "zero", "_to_", "contiguous", "stack")),
)
"""Kind of work -> what its operations' and kernels' names contain; the first that fits. Anything else is element by element."""
ELEMENTWISE = "element by element"
REST = "Python, dispatch, waiting"


@dataclasses.dataclass
class PhaseProfile:
    """One phase of a run. Times are of one step, in milliseconds."""

    phase: str
    share_of_run: float  # of the run's time
    step_ms: float  # without the profiler: the median, on a GPU the mean of steps that are not waited for one by one
    tokens_per_second: float
    mfu: float  # of the peak that a matrix product reached here
    data_wait_ms: float
    parts: dict[str, float]  # forward, backward, optimizer: ms, on the host's clock; with a CUDA graph there are none
    peak_bytes: dict[str, int]  # the most memory held beyond what was there before the step, in each part
    kinds: dict[str, float]  # ms of work by kind, and REST
    operations: list[tuple[str, float, int]]  # (name, ms, calls), the dearest first
    hints: list[str]


@dataclasses.dataclass
class Profile:
    """All phases."""

    method: str
    preset: str
    device: str
    precision: str
    cuda_graph: bool
    compile: bool
    threads: int
    micro_batch: int
    global_batch: int
    unit: str  # what tokens_per_second counts: tokens or images
    phases: list[PhaseProfile]
    hardware: dict[str, Any]
    versions: dict[str, str]


def profile(slug: str, config: PretrainConfig, *, say: Callable[[str], None] = print) -> Profile:
    """Profiles a few steps of each phase of a run.

    Args:
        slug: the method.
        config: as for `pretrain`; without a budget that of a long run.

    Raises:
        BadInput, UsageError: as `pretrain`.
    """
    config = long_run(with_mixture(config))
    check(config)
    method_class, device = methods.load(slug), use_device(config.device)
    threads, log = torch.get_num_threads(), logging.getLogger("headstart")
    log_level = log.level
    log.setLevel(logging.ERROR)  # a phase that begins untrained has much to say
    try:
        with tempfile.TemporaryDirectory() as scratch:
            init = resolve_init(config.init)
            corpus = open_corpus(method_class, config, config.out or Path("runs") / "profile", init)
            method = build_method(method_class, config, corpus.store, init).to(device)
            loader = Loader(corpus.mixture(config, method), config.global_batch)
            settings = config.trainer
            decisions = new_trial(method, loader, config, device, seconds=0.5, say=say).decide(
                config.budget,
                precision=config.precision,
                micro_batch=settings.micro_batch,
                compile=settings.compile,
                cuda_graph=settings.capture,
            )
            if decisions.compile:
                method.compile_parts()
            torch.set_num_threads(decisions.threads)
            trainer = Trainer(
                method,
                RunFolder(Path(scratch) / "run"),
                loader,
                held_out=None,
                optimizer=config.optimizer,
                schedule=config.schedule,
                config=dataclasses.replace(settings, checkpoint_folder=None, trackers=()),
                decisions=decisions,
                device=device,
                seed=config.seed,
                say=lambda line: None,
            )
            trainer.prepare_state()
            found = [profile_phase(trainer, phase, start, stop) for phase, start, stop in trainer.spans]
    finally:
        torch.set_num_threads(threads)
        log.setLevel(log_level)
    total = sum(entry.step_ms * (stop - start) for entry, (_, start, stop) in zip(found, trainer.spans, strict=True))
    for entry, (_, start, stop) in zip(found, trainer.spans, strict=True):
        entry.share_of_run = entry.step_ms * (stop - start) / total
    result = Profile(
        slug, config.preset, str(device), decisions.precision, decisions.cuda_graph, decisions.compile, decisions.threads, decisions.micro_batch,
        loader.global_batch, loader.unit, found, hardware.describe(), versions(),
    )  # fmt: skip
    for line in lines(result):
        say(line)
    return result


def profile_phase(trainer: Trainer, phase: Phase, start: int, stop: int) -> PhaseProfile:
    """A few steps from the beginning of a phase: warm, timed, then under the profiler."""
    device = trainer.device
    trainer.step = start
    trainer.enter(phase, first=True)
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    on_device = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    block = TIMED if on_device else 1  # a run lets the device fall behind: waiting for it after each step would add the host's time to its own
    times, waits = [], []
    with trainer.batches(start + WARM_UP + TIMED + PROFILED) as batches:
        for _ in range(WARM_UP):
            trainer.advance(batches, phase)
        for _ in range(TIMED // block):
            wait()
            began, waited = time.perf_counter(), batches.waited
            for _ in range(block):
                trainer.advance(batches, phase)
            wait()
            times.append(1e3 * (time.perf_counter() - began) / block)
            waits.append(1e3 * (batches.waited - waited) / block)
        with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
            began = time.perf_counter()
            for _ in range(PROFILED):
                trainer.advance(batches, phase)
            wait()
            profiled_ms = 1e3 * (time.perf_counter() - began) / PROFILED
    step_ms = median(times)
    parts = dict.fromkeys((FORWARD, BACKWARD, OPTIMIZER), 0.0)
    work: dict[str, tuple[float, int]] = {}
    for event in profiler.key_averages():
        if event.key in parts and event.cpu_time_total > 0:
            parts[event.key] += event.cpu_time_total / 1e3 / PROFILED
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        if own > 0 and is_work(event, on_device):
            work[event.key] = (own / 1e3 / PROFILED, round(event.count / PROFILED))
    kinds: dict[str, float] = defaultdict(float)
    for name, (ms, _) in work.items():
        kinds[kind_of(name)] += ms
    kinds[REST] = max(0.0, (step_ms if on_device else profiled_ms) - sum(kinds.values()))  # kernels take no longer under the profiler
    rows, tokens = trainer.loader.global_batch, trainer.loader.global_batch * trainer.loader.tokens_per_row
    found = PhaseProfile(
        phase=phase.name,
        share_of_run=0.0,
        step_ms=step_ms,
        tokens_per_second=tokens / step_ms * 1e3,
        mfu=trainer.decisions.executed(phase.name) / (step_ms / 1e3) / trainer.decisions.peak_flops,
        data_wait_ms=median(waits),
        parts={name: ms for name, ms in parts.items() if ms > 0},
        peak_bytes=peaks(profiler, on_device),
        kinds=dict(sorted(kinds.items(), key=lambda item: -item[1])),
        operations=sorted(((name, ms, calls) for name, (ms, calls) in work.items()), key=lambda item: -item[1])[:TOP],
        hints=[],
    )
    found.hints = hints(found, rows, on_device, trainer.decisions.cuda_graph)
    return found


def is_work(event: Any, on_device: bool) -> bool:
    """Whether an event is work of its own: a kernel on the device, an operation on a CPU; not a name around others."""
    if event.is_user_annotation or event.key.startswith(("autograd::engine", "Optimizer.", "[")):
        return False
    return event.device_type == torch.autograd.DeviceType.CUDA if on_device else event.key.startswith(("aten::", "mkl", "onednn", "c10d"))


def kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, parts in KINDS if any(part in lower for part in parts)), ELEMENTWISE)


def peaks(profiler: torch.profiler.profile, on_device: bool) -> dict[str, int]:
    """The most bytes held in each part of the first profiled step, beyond what was held when it began."""
    wanted = torch.autograd.DeviceType.CUDA if on_device else torch.autograd.DeviceType.CPU
    results: Any = None if profiler.profiler is None else profiler.profiler.kineto_results
    events = results.events()
    memory = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]" and event.device_type() == wanted)
    cpu = torch.autograd.DeviceType.CPU
    found: dict[str, int] = {}
    for name in (FORWARD, BACKWARD, OPTIMIZER):
        spans = sorted((event.start_ns(), event.end_ns()) for event in events if event.name() == name and event.device_type() == cpu)
        spans = spans[: len(spans) // PROFILED]
        if spans:
            found[name] = most_held(memory, spans)
    return found


def most_held(memory: Iterable[tuple[int, int]], spans: list[tuple[int, int]]) -> int:
    """The highest running sum of (time, bytes) at a time within one of the spans."""
    held = highest = 0
    for at, size in memory:
        held += size
        if any(start <= at <= stop for start, stop in spans):
            highest = max(highest, held)
    return highest


def hints(found: PhaseProfile, rows: int, on_device: bool, graph: bool) -> list[str]:
    """What the figures suggest to try, the cheapest first."""
    total = sum(found.kinds.values())
    share = {kind: ms / total for kind, ms in found.kinds.items()}
    advice = []
    if found.data_wait_ms > 0.02 * found.step_ms:
        advice.append("The step waits for its data: put the store on a faster disk, or look at `python -m benchmarks.loader`.")
    if share[REST] > 0.3 and on_device and not graph:
        advice.append("The device waits for Python: --trainer.cuda-graph on, or a larger --trainer.micro-batch.")
    elif share[REST] > 0.3:
        advice.append(f"Much of the step is not computing: a larger --batch than {rows} spreads it over more rows.")
    if share.get("optimiser", 0) > 0.25:
        advice.append("The optimiser takes much: a larger --batch makes fewer updates of the same data.")
    if share.get(ELEMENTWISE, 0) + share.get("normalisation", 0) > 0.4 and on_device:
        advice.append("Much is bound by memory, element by element: --trainer.compile on fuses it, where the budget repays a minute of compiling.")
    if share.get("copies, casts, filling", 0) > 0.25:
        advice.append("Copies and casts take much: --precision fp32 may be faster for a model this small.")
    return advice


def lines(result: Profile) -> list[str]:
    """The profile as text."""
    made = f"{result.precision}, micro-batch {result.micro_batch} of {result.global_batch}, {plural(result.threads, 'thread')}"
    made += f", compile {'on' if result.compile else 'off'}, CUDA graph {'on' if result.cuda_graph else 'off'}"
    report = [f"Profile: {result.method} ({result.preset}) on {result.device}: {made}"]
    for found in result.phases:
        total = sum(found.kinds.values())
        report += [
            "",
            f"phase {found.phase}: {found.step_ms:.1f} ms a step, {found.tokens_per_second:,.0f} {result.unit}/s, MFU {found.mfu:.0%},"
            f" data wait {found.data_wait_ms:.2f} ms; {found.share_of_run:.0%} of the run",
        ]
        if not result.device.startswith("cuda"):
            report.append(f"  below: a step under torch's profiler, which slows it down to {total:.1f} ms; what counts are the shares")
        if found.parts:
            report.append(f"  {'part':<44} {'ms':>9} {'share':>6} {'memory':>10}")
            of_parts = sum(found.parts.values())
            for name, ms in found.parts.items():
                report.append(f"  {name:<44} {ms:9.2f} {ms / of_parts:6.0%} {found.peak_bytes.get(name, 0) / 2**20:6.0f} MiB")
        report.append(f"  {'kind of work':<44} {'ms':>9} {'share':>6}")
        report += [f"  {kind:<44} {ms:9.2f} {ms / total:6.0%}" for kind, ms in found.kinds.items()]
        report.append(f"  {'operation':<44} {'ms':>9} {'share':>6} {'calls':>10}")
        report += [f"  {shown(name):<44} {ms:9.2f} {ms / total:6.0%} {calls:10,}" for name, ms, calls in found.operations]
        report += [f"  -> {hint}" for hint in found.hints]
    return report


def shown(name: str, width: int = 44) -> str:
    """A kernel's name, cut."""
    return name if len(name) <= width else name[: width - 3] + "..."
