"""The plan that a run prints before step 1: what it will do, for how long, what it can reach, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import torch

from headstart.core.config import flatten
from headstart.core.words import plural
from headstart.data.loader import Loader
from headstart.data.text.epochs import Epochs
from headstart.engine.method import Method
from headstart.engine.metrics import duration
from headstart.engine.plateau import steps_to_leave
from headstart.engine.trial import Decisions, own_run, spans, total_cost
from headstart.interventions.rewarm import schedule
from headstart.verbs import _sizing
from headstart.verbs._continuing import rewarming, warnings
from headstart.verbs._corpus import Corpus
from headstart.verbs._epochs import plan_lines as epoch_lines
from headstart.verbs._kinds import kind_of
from headstart.verbs.config import PretrainConfig

EARLIEST_LEAVE = 0.6  # a run that leaves the plateau after this share of its steps has too little left to learn from


def lines(
    slug: str,
    config: PretrainConfig,
    origin: dict[str, str],
    method: Method,
    corpus: Corpus,
    loader: Loader,
    decisions: Decisions,
    device: torch.device,
    out: Path,
    init: Path | None = None,
) -> list[str]:
    """The plan as lines of text.

    Args:
        init: the model folder that the run begins with.
    """
    steps = decisions.total_steps
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    seconds = total_cost(method, steps, decisions.seconds_per_step)
    flops = method.begin_flops + total_cost(method, steps, {name: float(n) for name, n in decisions.flops_per_step.items()})
    dense = method.begin_flops + total_cost(method, steps, {name: float(decisions.executed(name)) for name in decisions.flops_per_step})
    tokens = steps * loader.global_batch * loader.tokens_per_row
    planned = spans(method.phases(steps), steps)
    schedules = [own_run(planned, start, schedule=True) for _, start, _ in planned]
    length = schedules[-1][1]  # of the last schedule; all but those of interventions have one
    warmup = warmup_steps(config, length)
    state_gb = parameters * 12 / 2**30  # weights and two moments in fp32
    held_gb = 4 / 3 * state_gb / (decisions.world if decisions.parallel == "fsdp" else 1)  # and the gradients
    settings = decisions.why
    kind = kind_of(method)
    phases = ", ".join(f"{phase.name} {start}-{stop}" for phase, start, stop in planned)
    report = [
        f"Plan: {slug} ({config.preset}) into {out}",
        f"  data       {kind.data_words(corpus.stores, corpus.train)}",
        f"  model      {parameters / 1e6:.2f} M parameters, {kind.input_words(corpus.store)}",
        f"  length     {plural(steps, 'step')} of {plural(loader.global_batch, 'row')} = {plural(tokens, loader.unit)}"
        f" = {loader.epoch(steps):.2f} epochs; {flops:.3g} training FLOPs{executed(decisions, dense)}",
        f"  schedule   {schedule_words(config)}, warm-up {plural(round(warmup), 'step')} ({warmup / length:.1%}),"
        f" peak rate {config.optimizer.learning_rate:g} ({config.optimizer.name}){anew(len(set(schedules)))}",
        f"  phases     {phases}",
        f"  machine    {device}{processes(decisions)}, {plural(decisions.threads, 'thread')} ({settings.get('threads', 'recorded')}),"
        f" compile {'on' if decisions.compile else 'off'} ({settings['compile']}),"
        f" CUDA graph {'on' if decisions.cuda_graph else 'off'} ({settings['cuda_graph']})",
        f"  precision  {decisions.precision}: {settings['precision']}",
        f"  memory     micro-batch {decisions.micro_batch}: {settings['micro_batch']}; weights and optimiser {held_gb:.2f} GiB",
        f"  cost       about {duration(seconds)} here; disk about {3 * state_gb + 0.01:.2f} GiB (two checkpoints and the export)",
    ]
    report[2:2] = _sizing.plan_lines(config, origin, corpus.stores)
    if method.data_group == "image":
        report += [f"  WARNING    {found}" for store in corpus.stores for found in store.warnings()]
    report += [*rewarm_lines(config, method, length), *method.plan_lines()]
    if warmup >= length:
        report.append(f"  WARNING    the warm-up of {warmup:,.0f} steps is longer than the run: lower --schedule.warmup-steps.")
    if method.predicts_tokens and config.init is None and not config.smoke:
        report += plateau_lines(method, loader, steps, seconds, corpus.store.unigram_entropy)
    if len(corpus.stores) > 1:
        names = corpus.names or [store.folder.name for store in corpus.stores]
        passes = loader.mixture.epochs(steps * loader.global_batch)
        shares = ", ".join(f"{name} {float(share):.1%}" for name, share in zip(names, loader.mixture.shares, strict=True))
        seen = ", ".join(f"{passed:.2f}" for passed in passes)
        report.append(f"  mixture    {shares} of the rows; {seen} epochs")
    if isinstance(loader.mixture, Epochs):
        report += epoch_lines(loader.mixture, tokens)
    if corpus.measured:
        sizes = ", ".join(f"{name} ({plural(len(rows), 'row')})" for name, rows in corpus.measured_rows.items())
        report.append(f"  measured   held-out losses of {sizes}, each apart")
    if config.init is not None and init is not None and not config.smoke:
        report += [f"  WARNING    {warning}" for warning in warnings(config, method, corpus, init, length, warmup)]
    replaced = "schedule." if rewarming(config).on else " "  # re-warming takes its place: a preset's warm-up would be read as the run's
    shown = {name: value for name, value in flatten(config).items() if not name.startswith(replaced)}
    changed = [f"{name}={value} ({origin[name]})" for name, value in shown.items() if origin.get(name, "default") != "default"]
    if changed:
        report.append("  settings   " + ", ".join(changed))
    return report


def executed(decisions: Decisions, dense: float) -> str:
    """What the plan says of products with weights that stay zero, which count as no FLOPs and take their time all the same."""
    return f" counted without zeros, {dense:.3g} executed: a machine of dense kernels is no faster" if decisions.executed_flops_per_step else ""


def anew(schedules: int) -> str:
    """What the plan says of phases that begin the learning rate anew."""
    return "" if schedules == 1 else f"; anew in each of {schedules} stages"


def processes(decisions: Decisions) -> str:
    """What the plan says of several processes."""
    return "" if decisions.world == 1 else f" in {decisions.world} processes ({decisions.parallel})"


def warmup_steps(config: PretrainConfig, total_steps: int) -> float:
    """Of the schedule that decides the rate."""
    if (rewarm := rewarming(config)).on:
        return schedule.warmup_steps(rewarm, total_steps)
    return config.schedule.warmup_share * total_steps if config.schedule.warmup_steps is None else config.schedule.warmup_steps


def schedule_words(config: PretrainConfig) -> str:
    """The name of the schedule that decides the rate."""
    if (rewarm := rewarming(config)).on:
        return f"re-warming ({rewarm.preset}, {rewarm.resolved().shape})"
    return config.schedule.name


def rewarm_lines(config: PretrainConfig, method: Method, total_steps: int) -> list[str]:
    """The rates that matter, before the first of them is used: people are surprised by a rate that 'resets' (huggingface/transformers#23099)."""
    rewarm, peak = rewarming(config), config.optimizer.learning_rate
    if not rewarm.on:
        return []
    rates = [method.learning_rate(step, total_steps, peak) or 0.0 for step in (0, total_steps - 1)]
    old = "" if rewarm.old_rate is None else f"the old run ended at {rewarm.old_rate:.3g}; "
    kept = "moments of the optimiser " + ("as the old run left them" if rewarm.optimizer_state == "keep" else "begin anew")
    waits = f", {rewarm.moment_warmup_steps} steps at rate 0 before" if rewarm.moment_warmup_steps else ""
    lines = [f"  rates      {old}first {rates[0]:.3g}, peak {peak:.3g}, last {rates[1]:.3g}; {kept}{waits}"]
    if config.init is None:
        lines.append("  WARNING    there is no --init: this run starts from random weights, and re-warming is only the shape of its rate.")
    return lines


def plateau_lines(method: Method, loader: Loader, steps: int, seconds: float, entropy: float) -> list[str]:
    """Whether the budget can leave the unigram plateau; if not, the budget that could."""
    leave = steps_to_leave(method.predicted_per_row() * loader.global_batch)
    line = (
        f"  plateau    the loss starts on the unigram entropy, {entropy:.2f} nats, and should leave it after about {leave:,} steps (docs/plateau.md)"
    )
    if leave <= EARLIEST_LEAVE * steps:
        return [line]
    needed = leave / EARLIEST_LEAVE
    minutes = needed * seconds / steps / 60
    return [
        line,
        f"  WARNING    this budget of {steps:,} steps probably does not suffice: a head start that stays on the plateau hurts, and what is of use is"
        f" learned in the {1 - EARLIEST_LEAVE:.0%} of the steps behind it, at least."
        f" Give --budget.steps {needed:.0f} (about {minutes:.1f} minutes here) or more"
        + ("." if method.card.slug == "causal-lm" else ", or take causal-lm, which predicts every token and leaves it first."),
    ]
