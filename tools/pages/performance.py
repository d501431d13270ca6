"""docs/performance.md: what was measured beside what it must be, from the committed results. What was not measured yet says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tools.pages.results import read, there, where


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    result: str  # name of the JSON
    must: float  # 0: nothing, there is only an aim
    aim: float
    shown: Callable[[float], str]
    value: Callable[[Mapping[str, Any]], float | None] = lambda result: result["ratio"]
    higher_is_better: bool = True
    products: Callable[[Mapping[str, Any]], float | None] = lambda result: None  # what its products alone take, where that was measured


def times(value: float) -> str:
    return f"{value:.2f} x"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def over(value: float) -> str:
    """A ratio to the bare loop, as what is added."""
    return f"{100 * (value - 1):+.1f} %"


def seconds(value: float) -> str:
    return f"{value:.2f} s"


def mfu(value: float) -> str:
    return f"MFU {value:.2f}"


def power(value: float) -> str:
    return f"size^{value:.2f}"


def at(*path: str) -> Callable[[Mapping[str, Any]], float | None]:
    """The figure that lies there in a result, or None: the GPU script, for one, may not have come so far."""

    def value(result: Mapping[str, Any]) -> float | None:
        found: Any = result
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    return value


of_gpu, of_ours = partial(at, "figures"), partial(at, "ours")


def of_row(key: str, **which: object) -> Callable[[Mapping[str, Any]], float | None]:
    """A figure of one of a result's rows."""
    return lambda result: next((float(row[key]) for row in result["rows"] if which.items() <= row.items() and key in row), None)


def curation_memory(result: Mapping[str, Any]) -> float | None:
    """How the peak grows from the first size to sixteen times as many pages."""
    peaks = result["peak_mb_of_the_largest_process"]
    return math.log(peaks["16x"] / peaks["1x"], 16) if peaks else None


PACKED = at("packing", "text")
TRAJECTORIES = tuple(
    Line(
        f"Trajectories a second, {name}, batch {batch}, against torchgfn",
        "trajectories-cpu",
        must=3.0,
        aim=3.0,
        shown=times,
        value=of_row("ratio", environment=name, batch=batch),
        products=of_row("products_alone", environment=name, batch=batch),
    )
    for name in ("hypergrid", "bits")
    for batch in (16, 256)
)
LINES = (
    Line("CPU: ELECTRA-small, 16 x 128, fp32 on both sides", "step-electra-small-cpu-fp32", 1.8, 2.5, times),
    Line("CPU: the same, precision chosen by ours", "step-electra-small-cpu-auto", 1.8, 4.0, times),
    Line("CPU: GPT-2 124 M, 4 x 256, fp32 on both sides", "step-causal-lm-gpt2-cpu-fp32", 1.2, 1.5, times),
    Line("CPU: GPT-2 124 M continued from a folder, data included, against transformers' Trainer", "continue-lm-gpt2-cpu-fp32", 1.2, 1.5, times),
    Line("CPU: the same, against the Trainer compiled", "continue-lm-gpt2-cpu-fp32-compiled", 1.15, 1.15, times),
    Line("CPU: MAE, base at 224, batch 8, fp32 on both sides", "step-mae-base-cpu-fp32", 1.3, 1.3, times),
    Line("CPU: the same, precision chosen by ours", "step-mae-base-cpu-auto", 1.3, 1.3, times),
    Line("CPU: DropPos, the same encoder, against MAE's step, fp32 on both sides", "step-droppos-base-cpu-fp32", 1.3, 1.3, times),
    Line("CPU: the same, precision chosen by ours", "step-droppos-base-cpu-auto", 1.3, 1.3, times),
    Line("CPU: a student's step of self-distillation, MAE small, fp32, against the official loop", "self_distill-small-cpu", 1.2, 1.5, times),
    Line("CPU: a step with masked weights, GPT-2 124 M, 4 x 256, against torch's pruning", "sparse_step-cpu", 1.0, 1.05, times),
    Line("CPU: the same, over the dense step", "sparse_step-cpu", 1.05, 1.02, over, of_ours("over_dense"), higher_is_better=False),
    Line("GPU: ELECTRA-small, 256 x 128, bf16", "gpu", 3.0, 5.0, times, of_gpu("electra-small", "times_plain")),
    Line("GPU: ELECTRA-base, 256 x 128, bf16", "gpu", 2.2, 2.2, times, of_gpu("electra-base", "times_plain")),
    Line("GPU: ELECTRA-base, against the peer compiled", "gpu", 1.25, 1.25, times, of_gpu("electra-base", "times_compiled")),
    Line("GPU: ELECTRA-base, share of the matrix peak", "gpu", 0.40, 0.50, mfu, of_gpu("electra-base", "mfu")),
    Line("GPU: GPT-2 124 M, 32 x 1024, bf16", "gpu", 2.6, 2.6, times, of_gpu("causal-lm-gpt2", "times_plain")),
    Line("GPU: GPT-2, against the peer compiled", "gpu", 1.15, 1.15, times, of_gpu("causal-lm-gpt2", "times_compiled")),
    Line("GPU: GPT-2 continued from a folder, data included, against transformers' Trainer", "continue-lm-gpt2-cuda-bf16", 2.6, 2.6, times),
    Line("GPU: the same, against the Trainer compiled", "continue-lm-gpt2-cuda-bf16-compiled", 1.15, 1.15, times),
    Line("GPU: GPT-2, share of the matrix peak", "gpu", 0.48, 0.55, mfu, of_gpu("causal-lm-gpt2", "mfu")),
    Line("GPU: GPT-2, memory of the plain peer", "gpu", 1.0, 0.5, times, of_gpu("causal-lm-gpt2", "memory_of_plain"), higher_is_better=False),
    Line("GPU: GPT-2 with 8-bit products, against ours in bf16", "gpu", 1.0, 1.2, times, of_gpu("float8", "times_bf16")),
    Line("GPU: MAE, base at 224, batch 256, bf16", "gpu", 1.6, 1.6, times, of_gpu("mae-base", "times_plain")),
    Line("GPU: MAE, against the peer compiled", "gpu", 1.2, 1.2, times, of_gpu("mae-base", "times_compiled")),
    Line("GPU: MAE, share of the matrix peak", "gpu", 0.0, 0.45, mfu, of_gpu("mae-base", "mfu")),
    Line("GPU: DropPos, the same encoder, against MAE's step", "gpu", 1.6, 1.6, times, of_gpu("droppos-base", "times_plain")),
    Line("GPU: DropPos, against the peer compiled", "gpu", 1.2, 1.2, times, of_gpu("droppos-base", "times_compiled")),
    Line("GPU: a tiny model, share of a step on the device", "gpu", 0.85, 0.95, percent, of_gpu("tiny", "device_share")),
    Line("GPU: share of a step that waits for data", "gpu", 0.02, 0.005, percent, of_gpu("loader", "data_wait_share"), higher_is_better=False),
    Line("Store from text: WordPiece, of `encode_batch`'s rate", "tokenization-wordpiece", 0.9, 1.0, times),
    Line("Store from text: BPE", "tokenization-bpe", 0.9, 1.0, times),
    Line("Store from text: Unigram", "tokenization-unigram", 0.9, 1.0, times),
    Line("Engine over a bare loop: tiny network, CPU", "engine_overhead-tiny-cpu", 1.03, 1.01, over, higher_is_better=False),
    Line("Engine over a bare loop: 8 layers of 512, CPU", "engine_overhead-small-cpu", 1.03, 1.01, over, higher_is_better=False),
    Line("Pause of a save of 1 GB, of a blocking one's", "checkpoint", 0.15, 0.05, percent, higher_is_better=False),
    Line("Start: `headstart list`", "start", 0.5, 0.2, seconds, of_ours("headstart list"), higher_is_better=False),
    Line("Start: import", "start", 3.0, 2.0, seconds, of_ours("import headstart and its pretrain"), higher_is_better=False),
    Line("Start: first step of a tiny run", "start", 15.0, 8.0, seconds, of_ours("first step of a tiny run"), higher_is_better=False),
    *TRAJECTORIES,
    Line("Near-duplicates by MinHash, against datatrove's", "curate", 2.0, 2.0, times),
    Line("Crawl to documents (reading, extraction, MinHash), against datatrove's", "curate", 1.0, 1.0, times, at("ratio_whole")),
    Line("Growth: exponent of curation's memory in the pages", "curate", 0.2, 0.0, power, curation_memory, higher_is_better=False),
    Line("HTML to text with its formulas, pages a second, against trafilatura's plain text", "extract", 1.0, 1.0, times),
    Line("Packing of a continued run: share of a row's places that hold text", "continue-lm-gpt2-cpu-fp32", 0.98, 0.98, percent, PACKED),
    Line("8-bit products (`--precision fp8`): held-out loss, over that of bf16", "float8", 1.01, 1.002, over, higher_is_better=False),
    Line("Hessian trace, time to one standard error, against the official loop", "trace", 1.0, 2.0, times),
    Line("Scoring texts by a word trigram, against a loop over dictionaries", "ngram", 5.0, 10.0, times),
    Line("Growth: exponent of preparation in the data", "growth", 1.1, 1.0, power, higher_is_better=False),
)

PARTS = (
    ("products", "fp32 dense layers by oneDNN, against torch's MKL"),
    ("attention", "attention of short rows in bf16, against SDPA"),
    ("dropout", "dropout, against torch's"),
    ("sampling", "sampling from logits, against Gumbel noise"),
    ("whole_words", "hiding whole words, against the collator of transformers"),
    ("word_sets", "sets of words of documents, against the official algorithm"),
    ("pairs", "pairs for next-sentence prediction, against NVIDIA's builder"),
    ("rng", "counter-based draws, against Philox in the same arithmetic"),
    ("loader", "batches, against the fastest of DataLoader and grain"),
    ("image_loader", "batches of decoded images, against a folder of JPEG files through DataLoader"),
    ("augment-cpu", "augmentation of a batch: random resized crop, flip and normalisation, against kornia's faster way"),
)


def judged(line: Line, value: float) -> str:
    """How a figure stands to what it must and should be."""

    def good(wanted: float) -> bool:
        return value >= wanted if line.higher_is_better else value <= wanted

    if not good(line.must):
        return "**missed**"
    return "aim reached" if good(line.aim) else "reached"


def row(line: Line, result: Mapping[str, Any] | None) -> str:
    """The line with its figure."""
    value = None if result is None else line.value(result)
    figure, outcome = ("not measured yet", "") if value is None else (f"**{line.shown(value)}**", judged(line, value))
    command = "" if result is None else f"`{result['command']}`"
    if outcome == "**missed**" and result is not None and (products := line.products(result)) is not None:
        outcome += f", the products alone: {line.shown(products)}"
    aim = "" if line.aim == line.must else line.shown(line.aim)
    must = line.shown(line.must) if line.must else ""
    return f"| {line.what} | {figure} | {must} | {aim} | {outcome} | {command} |"


def table_block() -> str:
    """Every line, measured or not."""
    results = {line.result: read(line.result) if there(line.result) else None for line in LINES}
    rows = ["| what | measured | must | aim | | command |", "| --- | --- | --- | --- | --- | --- |"]
    rows += [row(line, results[line.result]) for line in LINES]
    machines = sorted({machine(result) for result in results.values() if result is not None})
    return "\n".join(rows) + "\n\nMeasured on: " + "; ".join(machines) + "."


def machine(result: Mapping[str, Any]) -> str:
    """Its CPU or, for what ran on one, its card; versions and date."""
    cards = [device["name"] for device in result["hardware"]["devices"]]
    return f"{cards[0]} ({where(dict(result))})" if cards else where(dict(result))


def parts_block() -> str:
    """The kernels and pieces that make the difference, each against what it replaces."""
    rows = ["| piece | times as fast | must | command |", "| --- | --- | --- | --- |"]
    for name, what in PARTS:
        if there(name):
            result = read(name)
            missed = "" if result["ratio"] >= result["must"] else " **missed**"
            rows.append(f"| {what} | {result['ratio']:.2f}{missed} | {result['must']:g} | `{result['command']}` |")
    return "\n".join(rows)


def growth_block() -> str:
    """Exponents of time and memory."""
    if not there("growth"):
        return "Not measured yet: `python -m benchmarks.growth`."
    names = {"length": "tokens of a row", "batch": "rows of a batch", "width": "width of the network", "data": "raw text, preparation"}
    result = read("growth")
    rows = ["| against | sizes | seconds | MiB |", "| --- | --- | --- | --- |"]
    for axis, curve in result["ours"].items():
        powers = curve["exponents"]
        rows.append(f"| {names[axis]} | {', '.join(map(str, curve['sizes']))} | size^{powers['seconds']:.2f} | size^{powers['mib']:.2f} |")
    figure = "![Time and memory against each size, both logarithmic](assets/growth.svg)"
    return "\n".join(rows) + f"\n\n{figure}\n\n({where(result)}; `{result['command']}`.)"
