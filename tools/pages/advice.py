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
    rows = ["| arm | measured after | accuracy then | over the best random start | after its whole run | minutes of that |"]
    rows += ["| --- | --- | --- | --- | --- | --- |"]
    arms = {arm["arm"]: arm for arm in info["arms"]}
    best = next((arm["gain_now"]["over"] for arm in arms.values() if arm["gain_now"]), None)
    for arm in (arms[name] for name in info["ranking"]):
        last, trained = arm["points"][-1], arm["kind"] == "candidate"
        value = f"{sum(last['values']) / len(last['values']):.3f}"
        gain = "the best random start" if arm["arm"] == best else between(arm["gain_now"], "+.3f") if arm["gain_now"] else ""
        share, cost = last["flops"] / info["budget"]["flops"], minutes.get(arm["arm"], 0.0)
        cells = [f"{share:.1%} of its run", value, gain, between(arm["full"], ".3f"), f"{cost:.1f}"] if trained else ["-", value, gain, "as now", "0"]
        rows.append(f"| {arm['arm']} | " + " | ".join(cells) + " |")
    said = [info["verdict"]["sentence"], *info["verdict"]["notes"], info["labels_worth"]["sentence"] if info["labels_worth"] else ""]
    said += [info["leaks"]["sentence"] if info["leaks"] else "", left_out(info), spent(info)]
    return "\n".join(rows) + "\n\n" + " ".join(part.replace("<", "&lt;") for part in said if part)


def between(found: dict[str, Any], form: str) -> str:
    """A value with its interval."""
    low, high = found["ci95"]
    return f"{found['value']:{form}} ({low:{form}} to {high:{form}})"


def left_out(info: dict[str, Any]) -> str:
    """Which methods this budget could not judge."""
    named = [f"{entry['method']} (from about {entry['minutes']:.0f} minutes on)" for entry in info["left_out"] if entry["minutes"] is not None]
    return f"This budget could not judge {', '.join(named)}." if named else ""


def spent(info: dict[str, Any]) -> str:
    """What the answer cost, and where."""
    hardware, labels, budget = info["hardware"], info["look"]["labels"]["records"], info["budget"]
    took = {name: seconds / 60 for name, seconds in info["spent"].items()}
    answer = took.get("speed_s", 0.0) + took["training_s"] + took["measuring_s"]
    # a result from before training and measuring were planned together has no plan
    kept = "before measuring counted" if info["plan"] is None else f"of the {budget['trial_seconds'] / 60:.1f} that are a fifth of it"
    return (
        f"(A budget of {budget['minutes']:g} minutes, {labels} labels; the answer took {answer:.1f} minutes, {kept}:"
        f" {took['training_s']:.1f} of training and {took['measuring_s']:.1f} of measuring, on {hardware['cpu']}, {hardware['cores']} cores,"
        " beside other work.)"
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
