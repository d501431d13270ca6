"""Blocks of the guide "Which method should I use?": what lies in a folder, the advice on two real sets, and how an arm is measured."""

from __future__ import annotations

from typing import Any

from headstart import catalog
from headstart.catalog.card import DATA_KINDS
from tools.pages.results import read, there


def folder_block() -> str:
    """Every kind of data with the methods whose cards ask for it; those with code are set in bold."""
    rows = ["| what lies in your folder | methods that fit (bold: run today) |", "| --- | --- |"]
    for kind, words in DATA_KINDS.items():
        cards = [card for card in [*catalog.BASELINES.values(), *catalog.cards()] if kind in card.data_kinds]
        named = [f"**{card.slug}**" if catalog.implemented(card.slug) else card.slug for card in cards]
        rows.append(f"| {words} | {', '.join(named) or '-'} |")
    return "\n".join(rows)


def advice_block(name: str) -> str:
    """What a committed advice found."""
    if not there(f"advice-{name}"):
        return "Not measured yet."
    info = read(f"advice-{name}")
    minutes = {entry["arm"]: entry["minutes"] for entry in info["candidates"]}
    rows = ["| arm | share of the budget | accuracy then | whole budget (95 % interval) | minutes |", "| --- | --- | --- | --- | --- |"]
    arms = {arm["arm"]: arm for arm in info["arms"]}
    for arm in (arms[name] for name in info["ranking"]):
        last = arm["points"][-1]
        low, high = arm["full"]["ci95"]
        cost = f"{minutes[arm['arm']]:.1f}" if arm["kind"] == "candidate" else "0"
        share, value = last["flops"] / info["budget"]["flops"], sum(last["values"]) / len(last["values"])
        rows.append(f"| {arm['arm']} | {share:.1%} | {value:.3f} | {arm['full']['value']:.3f} ({low:.3f} to {high:.3f}) | {cost} |")
    said = [info["verdict"]["sentence"], *info["verdict"]["notes"], info["labels_worth"]["sentence"] if info["labels_worth"] else ""]
    said += [info["leaks"]["sentence"] if info["leaks"] else "", spent(info)]
    return "\n".join(rows) + "\n\n" + " ".join(part.replace("<", "&lt;") for part in said if part)


def spent(info: dict[str, Any]) -> str:
    """What the answer cost, and where."""
    hardware, labels = info["hardware"], info["look"]["labels"]["records"]
    training, measuring = info["spent"]["training_s"] / 60, info["spent"]["measuring_s"] / 60
    return (
        f"(A budget of {info['budget']['minutes']:g} minutes, {labels} labels; the answer took {training:.1f} minutes of training and"
        f" {measuring:.1f} of measuring on {hardware['cpu']}, {hardware['cores']} cores, beside other work.)"
    )


def measure_block() -> str:
    """Fine-tuning against a linear probe."""
    rows = ["| measured by | Kendall's tau with the final order | error of the gain over a random start | its sign right | seconds |"]
    rows += ["| --- | --- | --- | --- | --- |"]
    result = read("advise_measure")
    for task, found in result["tasks"].items():
        for way, entry in found["ways"].items():
            cells = [f"{entry['kendall_tau']:.2f}", f"{entry['gain_error']:.3f}", f"{entry['sign_right']} of {entry['gains']}"]
            cells.append(f"{entry['seconds']:.1f}")
            rows.append(f"| {way.replace('_', '-')} ({task}, {found['train']} labels a split) | " + " | ".join(cells) + " |")
    states = sum(len(found["states"]) for found in result["tasks"].values())
    final = "the final order is that of fine-tuning on all labels, scored on a test file of its own"
    return "\n".join(rows) + f"\n\n{states} states of networks; {final}."
