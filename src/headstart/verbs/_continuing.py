"""What changes when a run begins with a finished model: its old rates, its moments, and what a person should know before step 1."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, sha256_file
from headstart.core.run import read_lines
from headstart.data.listing import is_store
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.method import Method
from headstart.interventions.rewarm import schedule
from headstart.interventions.rewarm.config import PAPER_PEAKS, RewarmConfig
from headstart.tasks.leaks import runs_behind
from headstart.verbs._corpus import Corpus, trained_stores
from headstart.verbs._exports import run_of
from headstart.verbs._parts import OLD, mix_of
from headstart.verbs._same_run import GIVEN
from headstart.verbs.config import WEIGHT_FILES, PretrainConfig, flag, preset_config

FEW_ENTRIES = 0.95
"""Share of a network's rows of embeddings that a tokenizer uses at least: sizes are rounded up, by 0.1 % (Pythia) to 2.3 % (DeepSeek)."""
LONG_WARMUP = 0.1
"""A warm-up longer than this share of a continued run is said (Lightning-AI/litgpt#1517: 30,000 steps of 100,000)."""
CONTAMINATED = 0.05
"""From this share of held-out windows the curve says little."""


@dataclass(frozen=True)
class Began:
    """What the run of a model recorded."""

    folder: Path
    info: dict[str, Any]
    step: int | None
    """Of the model, where it lies beside a checkpoint; None: the last."""

    @property
    def peak(self) -> float | None:
        """The peak rate."""
        value = (self.info.get("config", {}).get("optimizer") or {}).get("learning_rate")
        return float(value) if isinstance(value, int | float) and value > 0 else None

    @property
    def batch(self) -> int | None:
        """Rows of an update, which its peak was chosen for."""
        value = self.info.get("config", {}).get("batch")
        return value if type(value) is int and value > 0 else None

    @property
    def last_rate(self) -> float | None:
        """The rate of the last update that metrics.jsonl has of it."""
        path = self.folder / "metrics.jsonl"
        lines = read_lines(path) if path.is_file() else iter(())
        rates = [line["learning_rate"] for line in lines if "learning_rate" in line and (self.step is None or line["step"] <= self.step)]
        return float(rates[-1]) if rates else None

    def checkpoint(self) -> Path | None:
        """The checkpoint with the model's moments, if it is there."""
        found = sorted((self.folder / "checkpoints").glob("step-*"))
        if self.step is not None:
            found = [path for path in found if path.name == f"step-{self.step:08d}"]
        return found[-1] if found else None


def rewarming(config: PretrainConfig) -> RewarmConfig:
    """The group of settings of re-warming, which every configuration of a method has."""
    found: RewarmConfig = config.rewarm  # type: ignore[attr-defined]
    return found


def began_with(init: Path) -> Began | None:
    """What is known of a model folder; None where it lies in no run of ours."""
    found = run_of(init)
    if found is None:
        return None
    inside = re.search(r"step-(\d+)", str(init.absolute().relative_to(found[0].absolute())))
    return Began(*found, None if inside is None else int(inside[1]))


def with_old_rates(
    config: PretrainConfig, origin: dict[str, str], method: type[Method], init: Path | None, before: dict[str, Any] | None, world: int = 1
) -> tuple[PretrainConfig, list[str]]:
    """(settings with the rates and the batch that re-warming takes from the old run, their dotted names).

    Args:
        before: the settings that run.json records, where the run itself goes on: then its old rates are those.
        world: processes that share a batch.

    Raises:
        UsageError: a rate is needed that nothing records, or two settings say different things of the rate.
    """
    rewarm = rewarming(config)
    if not rewarm.on:
        return config, []
    usual = preset_config(method, config.preset)[1]

    def was_given(name: str, now: Any, by_preset: Any) -> bool:
        return origin.get(name) in GIVEN and (origin[name] != "config" or now != by_preset)  # a written file names every setting

    for field in dataclasses.fields(config.schedule):
        if was_given(f"schedule.{field.name}", getattr(config.schedule, field.name), getattr(usual.schedule, field.name)):
            raise UsageError(f"--{flag(f'schedule.{field.name}')} was given, and --rewarm decides the rate.", "Give one of the two.")
    if before is not None:
        rate, old_rate, batch = before["optimizer"]["learning_rate"], before["rewarm"]["old_rate"], before["batch"]
    else:
        given = was_given("optimizer.learning_rate", config.optimizer.learning_rate, usual.optimizer.learning_rate)
        old = None if init is None else began_with(init)
        old_rate = rewarm.old_rate if rewarm.old_rate is not None or old is None else old.last_rate
        rate = _peak(config, old, old_rate, given)
        own = rewarm.preset in PAPER_PEAKS or config.smoke or was_given("batch", config.batch, usual.batch)  # the paper's rates are of its own batch
        batch = config.batch if own or old is None or old.batch is None or other_batch(config, old, world) else old.batch
    taken = {"optimizer.learning_rate": rate, "rewarm.old_rate": old_rate} | ({} if batch == config.batch else {"batch": batch})
    return replace_nested(config, taken), list(taken)


def other_batch(config: PretrainConfig, old: Began, world: int = 1) -> str:
    """Why an update cannot have the rows of the old run, in words; empty where it can."""
    rows, length = old.batch or config.batch, getattr(config.method, "sequence_length", None)
    before, micro = (old.info.get("config", {}).get("method") or {}).get("sequence_length"), config.trainer.micro_batch or 1
    if length != before:
        return f"they had {before} tokens, these have {length}"
    if rows is not None and rows % (world * micro):
        return f"micro-batches of {micro} rows do not divide them" + (f" among {world} processes" if world > 1 else "")
    return ""


def said_of_batch(config: PretrainConfig, origin: dict[str, str], taken: list[str], init: Path | None, world: int = 1) -> Iterator[str]:
    """What a person should know of the rows of an update, beside the old peak.

    Args:
        taken: as `with_old_rates` returns it.
    """
    asked = origin.get("batch") in GIVEN or not rewarming(config).on or rewarming(config).preset in PAPER_PEAKS
    old = None if init is None or asked else began_with(init)
    if "batch" in taken:
        yield f"An update has {config.global_batch:,} rows, as in the run that the model is of: its peak rate was chosen for them."
    elif old is not None and old.batch not in (None, config.batch) and (why := other_batch(config, old, world)):
        yield f"An update has {config.global_batch:,} rows, not the {old.batch:,} of the old run, for which its peak was chosen: {why}."


def _peak(config: PretrainConfig, old: Began | None, old_rate: float | None, given: bool) -> float:
    """The peak rate: as given, of the preset, or of the old run."""
    rewarm, learning_rate = rewarming(config), config.optimizer.learning_rate
    if given and rewarm.peak_ratio != 1.0:
        raise UsageError("--rewarm.peak-ratio and --optimizer.learning-rate both say how high the peak is.", "Give one of the two.")
    if given or (config.init is None and rewarm.preset == "relative"):
        return learning_rate
    if rewarm.preset in PAPER_PEAKS:
        return PAPER_PEAKS[rewarm.preset] * rewarm.peak_ratio
    missing = "its peak" if rewarm.preset == "relative" else "the rate at which it ended"
    if (found := (None if old is None else old.peak) if rewarm.preset == "relative" else old_rate) is None:
        whose = "There is no --init, so nothing says" if config.init is None else f"The model in {config.init} does not record"
        raise UsageError(f"{whose} {missing}.", "Give the rate, for example --optimizer.learning-rate 3e-4; it is not guessed from the network.")
    return found * (rewarm.peak_ratio if rewarm.preset == "relative" else 1.0)


def identity(config: PretrainConfig, init: Path) -> dict[str, Any] | None:
    """What run.json keeps of the model that a re-warmed run began with: its folder, its old rates, and the SHA-256 of its weights."""
    if not rewarming(config).on:
        return None
    old = began_with(init)
    weights = sorted(path for path in init.rglob("*") if path.suffix in WEIGHT_FILES)
    return {
        "model": str(config.init),
        "peak": None if old is None else old.peak,
        "last_rate": None if old is None else old.last_rate,
        "sha256": {str(path.relative_to(init)): sha256_file(path) for path in weights},
    }


def refuse(config: PretrainConfig, method: Method, corpus: Corpus, total_steps: int) -> None:
    """What no continued run can have; checked once its length is known.

    Raises:
        UsageError: too few steps, or rows longer than the model. BadInput: less text than one batch.
    """
    rewarm = rewarming(config)
    if config.init is None or config.smoke or not rewarm.on:
        return
    schedule.refuse_length(rewarm, total_steps)
    rows = sum(map(len, corpus.train))
    if rows < config.global_batch:
        sources = corpus.store.manifest.get("sources", [corpus.store.folder])
        raise BadInput(f"gives {rows} rows, less than one batch of {config.global_batch}.", "Give more text, or a smaller --batch.", file=sources[0])
    positions = getattr(getattr(method.backbone(), "config", None), "max_position_embeddings", None)
    length = getattr(config.method, "sequence_length", 0)
    if isinstance(positions, int) and length > positions:
        raise UsageError(f"Rows of {length} tokens are longer than the {positions} positions of the model.", "Lower --method.sequence-length.")


def old_moments(config: PretrainConfig) -> dict[str, Any] | None:
    """The optimiser's state of the old run ({"state": name -> tensors, "groups"}), where --rewarm.optimizer-state keep asks for it.

    Raises:
        UsageError: --init has weights alone. BadInput: the checkpoint is damaged.
    """
    if rewarming(config).optimizer_state == "reset":
        return None
    old = None if config.init is None else began_with(config.init)
    folder = None if old is None else old.checkpoint()
    if folder is None:
        raise UsageError(f"{config.init or 'The run'} has no checkpoint with the moments of its optimiser.", "Give --rewarm.optimizer-state reset.")
    before = (old.info.get("config", {}).get("optimizer") or {}).get("name") if old is not None else None
    if before != config.optimizer.name:
        raise UsageError(f"The moments of {config.init} are those of {before}, not of {config.optimizer.name}.", f"Give --optimizer.name {before}.")
    state: dict[str, Any] = load_checkpoint(folder)[1]["optimizer"]
    return state


def warnings(config: PretrainConfig, method: Method, corpus: Corpus, init: Path, total_steps: int, warmup: float) -> list[str]:
    """What a person who continues a language model should know before step 1.

    Args:
        init: the model folder that was loaded.
        warmup: steps of the warm-up.
    """
    found = list(_trained_on_before(corpus, config.init)) if method.data_group == "text" and config.init is not None else []
    found += list(_few_entries(corpus, init)) if method.data_group == "text" else []
    if not method.likelihood:
        return found
    from headstart.engine.text_method import model_folder  # transformers

    if has_chat_template(model_folder(init)):
        found.append(
            f"{config.init} has a chat template, so it is a chat or instruction model unless its makers left one beside a base model: raw text makes"
            " such a model forget how to answer. Continue its base model, or mix conversations in as a part of --data."
        )
    if warmup > LONG_WARMUP * total_steps:
        found.append(
            f"the warm-up takes {warmup:,.0f} of {total_steps:,} steps ({warmup / total_steps:.0%}): more than a tenth seldom helps, and the run may"
            " end before it has learned."
        )
    shares = mix_of(config.mix) or dict.fromkeys(corpus.names, 1.0)
    if not shares.get(OLD) and len([share for share in shares.values() if share]) < 2:
        found.append(f"no text of the old kind is replayed; 1 to 10 % of it keeps most of the old skills. {_offer(config)}")
    if OLD not in corpus.measured and len(corpus.measured) < 2:
        found.append(f"no held-out text of the old kind is measured, so forgetting will not be seen. {_offer(config)}")
    if OLD in corpus.measured:
        found += list(_contaminated(corpus))
    return found + list(_twice(corpus))


def _few_entries(corpus: Corpus, init: Path) -> Iterator[str]:
    """Where the tokenizer that lies beside a network is smaller than it: perhaps of another model."""
    from headstart.engine.text_method import model_folder  # transformers
    from headstart.interop.model_folder import read_config

    rows, entries = getattr(read_config(model_folder(init)), "vocab_size", None), corpus.store.vocab_size
    if isinstance(rows, int) and entries < FEW_ENTRIES * rows:
        yield (
            f"the tokenizer has {entries:,} entries, the network {rows:,} rows of embeddings: sizes are rounded up, but seldom by more than"
            f" {1 - FEW_ENTRIES:.0%}. Is it the tokenizer that the network was trained with? Another one makes its weights worthless."
        )


def unfamiliar(method: Method, corpus: Corpus, held_out: Mapping[str, float]) -> Iterator[str]:
    """Where a model that is continued predicts text no better than a table of how often each token comes.

    Args:
        held_out: metrics of the first held-out rows, before step 1.
    """
    if not method.likelihood:  # its loss is no surprise at a token
        return
    loss, entropy = held_out.get("held_out/loss"), max(store.unigram_entropy for store in corpus.stores)
    if loss is not None and not math.isfinite(loss):
        yield f"the loss of the first held-out rows, before any update, is {loss}: no finite number comes of this model and text in this precision."
    elif loss is not None and loss > entropy:
        yield (
            f"the model predicts the first held-out rows with {loss:.2f} nats a token, no better than the shares of the tokens alone would"
            f" ({entropy:.2f}). Text that is very unlike what it was trained on gives that; a tokenizer that is not its own always does."
        )


def _offer(config: PretrainConfig) -> str:
    """How to name the old text."""
    assert config.init is not None
    new = next(iter(config.data), "new.jsonl")
    new = new if "=" in new else f"new={new}"
    known = [store for store in trained_stores(config.init) if is_store(store)]
    old = f" old={known[0]}" if len(known) == 1 else " old=OLD.jsonl"
    return f"For example: --data {new}{old} --mix new=0.9,old=0.1."


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder holds a chat template, as chat and instruction models do."""
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")):
        return True
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def _trained_on_before(corpus: Corpus, init: Path) -> Iterator[str]:
    """Where the runs behind a model were trained on what is held out now: a document is held out by its hash, so that happens where their share of
    held-out text was smaller, or that text was another file."""
    from headstart.data.text.overlap import seen_documents
    from headstart.data.text.store import open_text_store

    for name, store in (corpus.measured or {"": corpus.store}).items():
        seen = np.zeros(len(store.documents("held_out")), bool)
        runs, shares = [], []
        for run, info in runs_behind(init):
            for entry in info.get("data", []):
                if entry.get("tokenizer_sha256") != store.manifest["tokenizer_sha256"] or not is_store(entry["store"]):
                    continue
                of_run = open_text_store(entry["store"])
                if (more := seen_documents(store, of_run)).any():
                    seen |= more
                    runs.append(str(run))
                    shares.append(float(of_run.manifest["preparation"].get("held_out_share", 0.0)))
        if len(seen) and seen.mean() > CONTAMINATED:
            part, entry = (f" of '{name}'", f"{name}:held-out=FILE") if name else ("", "new=FILE new:held-out=FILE")
            same = f", or hold out the documents that it held out: --text.held-out-share {min(shares):g}" if min(shares) > 0 else ""
            yield (
                f"{seen.mean():.0%} of the held-out documents{part} were trained on by {' and '.join(dict.fromkeys(runs))}: their loss says more of"
                f" memory than of skill. Give text that it has not seen, --data {entry}{same}."
            )


def _twice(corpus: Corpus) -> Iterator[str]:
    """Where two parts are the same text."""
    from headstart.data.text.overlap import same_documents

    for (first, store), (second, other) in combinations(corpus.measured.items(), 2):
        if (share := same_documents(store, other)) > CONTAMINATED:
            yield (
                f"'{first}' and '{second}' are the same text for {share:.0%} of their held-out documents: --mix gives it both shares, and the two"
                " losses do not tell old from new."
            )


def _contaminated(corpus: Corpus) -> Iterator[str]:
    """Where the held-out old text stands in what is trained on."""
    from headstart.data.text.overlap import seen_windows
    from headstart.data.text.quality import WINDOW

    for name, store in zip(corpus.names, corpus.stores, strict=True):
        share = 0.0 if name == OLD else seen_windows(corpus.measured[OLD], store)
        if share > CONTAMINATED:
            yield (
                f"{share:.0%} of the {WINDOW}-word windows of the held-out '{OLD}' text stand in '{name}', which is trained on: its curve says too"
                " little of forgetting."
            )
