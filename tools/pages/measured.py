"""Blocks made from the committed results of benchmarks and of the demonstration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headstart.verbs.demo import table_lines
from tools.pages.results import ROOT, read, where


def demo_block() -> str:
    """The table and the sentence of the committed demonstration."""
    result = read("demo")
    minutes = result["wall_s"] / 60
    where = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
    return "```\n" + "\n".join([*table_lines(result["arms"]), "", result["sentence"]]) + f"\n```\n\n({minutes:.1f} minutes in all on {where}.)"


def plateau_block() -> str:
    """When each recipe left the plateau."""
    rows = ["| recipe | tokens predicted a step | steps to leave | tokens predicted until then |", "| --- | --- | --- | --- |"]
    result = read("plateau")
    for arm in result["arms"]:
        left = arm["left_at"]
        until = "-" if left is None else f"{arm['predicted_until_then']:,.0f}"
        steps = f"not within {arm['steps']:,}" if left is None else f"{left:,}"
        rows.append(f"| {arm['recipe']} | {arm['predicted_per_step']:,.0f} | {steps} | {until} |")
    return "\n".join(rows) + f"\n\nUnigram entropy of this corpus: {result['unigram_entropy']:.2f} nats. {result['what']}"


def checkpoint_block() -> str:
    """What a save costs the training, ours and the peers'."""
    result = read("checkpoint")
    arms = {"ours": result["ours"], "`torch.save`, not flushed": result["peer"], "`dcp.async_save`": result["peer"]["dcp.async_save"]}
    rows = ["| a save | pause | first pause | written after | steps beside it took longer by |", "| --- | --- | --- | --- | --- |"]
    for name, arm in arms.items():
        rows.append(f"| {name} | " + " | ".join(f"{arm[key]:.2f} s" for key in ("pause_s", "first_pause_s", "written_s", "slower_steps_s")) + " |")
    where = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
    return "\n".join(rows) + f"\n\n{result['what']} ({where}). Our pause is {100 * result['ratio']:.1f} % of the blocking one's."


def curation_block() -> str:
    """Pages a second of each stage and beside datatrove, peaks of memory, and what a month of Common Crawl would take."""
    result = read("curate")
    a_page = result["megabytes"] / result["pages"]
    stages = result["stages"]
    whole = sum(stage["seconds"] for stage in stages.values())
    rows = ["| stage, one core | pages/s | MB/s of HTML | of the time |", "| --- | --- | --- | --- |"]
    for name, stage in stages.items():
        rate = stage["pages"] / max(stage["seconds"], 1e-9)
        rows.append(f"| `{name}` | {rate:,.0f} | {rate * a_page:,.1f} | {100 * stage['seconds'] / whole:.1f} % |")
    return "\n".join([*rows, "", *_beside_datatrove(result), "", _memory_and_month(result)])


def _beside_datatrove(result: Mapping[str, Any]) -> list[str]:
    ours, peer = result["ours"]["pages_per_s"], result["peer"]["pages_per_s"]
    rows = ["| the same work, one core | pages/s | MB/s of HTML | datatrove, pages/s |", "| --- | --- | --- | --- |"]
    for part in ("reading", "extraction", "MinHash"):
        rate = ours[f"{part}, headstart"]
        rows.append(f"| {part} | {rate:,.0f} | {rate * result['megabytes'] / result['pages']:,.1f} | {peer[f'{part}, datatrove']:,.0f} |")
    times = f"All three together are {result['ratio_whole']:.1f} times as fast as datatrove's, MinHash alone {result['ratio']:.1f} times"
    return [*rows, "", f"{times}, reading {result['ratio_reading']:.2f} times."]


def _memory_and_month(result: Mapping[str, Any]) -> str:
    peaks = ", ".join(f"{peak:,.0f} MB at {size}" for size, peak in result["peak_mb_of_the_largest_process"].items())
    month = result["a_monthly_crawl"]
    crawl = month["crawl"]
    sizes = [1000 * one["megabytes"] / one["pages"] for one in (crawl, result)]
    every, paper = ((month["core_hours_by_pages"][name], month["core_hours_by_bytes"][name]) for name in ("every_page", "as_in_the_paper"))
    return (
        f"The largest process of a curation had {peaks} the input. A month of Common Crawl ({crawl['name']}, {crawl['pages'] / 1e9:.2f} billion"
        f" pages) would take {every[0]:,.0f} core hours at these rates if every page went through every stage, {paper[0]:,.0f} if the stages kept"
        f" what they keep in the paper: {paper[0] / 24 / 96:,.1f} days on a machine of 96 cores. If bytes cost alike, not pages, {every[1]:,.0f}"
        f" and {paper[1]:,.0f}: its pages have {sizes[0]:.0f} kB on average, these {sizes[1]:.0f}."
        f"\n\n({where(result)}; `{result['command']}`.)"
    )


def passes_block() -> str:
    """How often each arm of webmath's claim on text saw its corpus."""
    result = json.loads((ROOT / "claims" / "results" / "webmath_text-cpu.json").read_text(encoding="utf-8"))
    base = {run["seed"]: run["tokens"] for arm in result["arms"] if arm["arm"] == "none" for run in arm["runs"]}
    rows = ["| arm | bytes of its corpus | bytes it was trained on | passes |", "| --- | --- | --- | --- |"]
    for arm in result["arms"]:
        if arm["arm"] == "none":
            continue
        size = result["data"]["bytes"][arm["arm"]]
        seen = arm["runs"][0]["tokens"] - base[arm["runs"][0]["seed"]]
        rows.append(f"| {arm['arm']} | {size:,} | {seen:,} | {seen / (size * (1 - result['settings']['text.held_out_share'])):.1f} |")
    return "\n".join(rows)


def visible_block() -> str:
    """How much of what stands for a document its row shows."""
    result = read("matching_start")
    passages, parts = (result["visible"][name] for name in ("passages", "parts of 40 words"))
    shares = ", ".join(f"{100 * share:.0f} % with rows of {length} tokens" for length, share in passages.items())
    of_parts = ", ".join(f"{100 * share:.0f} % with rows of {length}" for length, share in parts.items())
    what = "Of Wikipedia's passages, counting the tokens of a set that its row shows orders the pairs rightly in"
    return f"{what} {shares}; of parts of 40 words in {of_parts}."


def start_block() -> str:
    """What the two random starts learn."""
    result = read("matching_start")
    bert, matching = result["peer"], result["ours"]
    return (
        f"In the network of the preset `tiny` {100 * bert['spread']:.2g} % of the first state of [CLS] differs between rows from BERT's weights, and"
        f" {100 * matching['spread']:.2g} % from these. Told to tell a document's set from another document's, alone, it has"
        f" {100 * bert['in_order']:.0f} % of the pairs in order after its first steps, and {100 * matching['in_order']:.0f} %"
        f" ({result['command'].removeprefix('python -m ')})."
    )


def drawing_block() -> str:
    """What drawing sets takes beside a step."""
    times = read("matching_start")["milliseconds"]
    draws = ", ".join(f"{value:.0f} ms at {name.removeprefix('draw, ')}" for name, value in times.items() if name.startswith("draw"))
    whole = f"loss and gradient of the preset `tiny` {times['loss and gradient']:.0f} ms"
    return f"Drawing the sets of 32 documents and laying their rows takes {draws}; {whole}."
