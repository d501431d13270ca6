"""Blocks made from the committed results of benchmarks and of the demonstration."""

from __future__ import annotations

from headstart.verbs.demo import table_lines
from tools.pages.results import read, where


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
    """Pages a second of each stage beside datatrove's, peaks of memory, and what a month of Common Crawl would take."""
    result = read("curate")
    ours, peer = result["ours"]["pages_per_s"], result["peer"]["pages_per_s"]
    rows = ["| one core | pages/s | MB/s of HTML | datatrove, pages/s |", "| --- | --- | --- | --- |"]
    for stage in ("reading", "extraction", "MinHash"):
        rate = ours[f"{stage}, headstart"]
        rows.append(f"| {stage} | {rate:,.0f} | {rate * result['megabytes'] / result['pages']:,.1f} | {peer[f'{stage}, datatrove']:,.0f} |")
    peaks = ", ".join(f"{peak:,.0f} MB at {size}" for size, peak in result["peak_mb_of_the_largest_process"].items())
    month = result["a_monthly_crawl"]
    crawl = month["crawl"]
    sizes = [1000 * one["megabytes"] / one["pages"] for one in (crawl, result)]
    return (
        "\n".join(rows)
        + f"\n\nAll three together are {result['ratio_whole']:.1f} times as fast as datatrove's, MinHash alone {result['ratio']:.1f} times."
        + f" The largest process of a curation of plain text had {peaks} the input. Reading, extraction and MinHash of a month of"
        + f" Common Crawl ({crawl['name']}), without language identification and classifiers, would take"
        + f" {month['core_hours_by_pages']:,} core hours if pages cost alike, {month['core_hours_by_bytes']:,} if bytes do: its pages have"
        + f" {sizes[0]:.0f} kB on average, these {sizes[1]:.0f}.\n\n({where(result)}; `{result['command']}`.)"
    )
