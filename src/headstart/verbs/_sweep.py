"""Short continued runs at several mixtures: what a law is fitted to. Each is an ordinary run folder, and the same call goes on where it stopped.

- The optimiser begins anew, the rate warms up over 20 steps and then stays, at half the planned peak: a loss in mid-run is that of a shorter run.
- All runs of a seed read the same order of each text; a run with more of one goes further along it.
- Every look that counts scores the same held-out windows: all of them.
- A finished run keeps its losses; its weights go, since a sweep has dozens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart import methods
from headstart.core.config import flag_names, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.flags import in_words_of
from headstart.core.run import read_run
from headstart.data.text.store import open_text_store
from headstart.interop.model_folder import read_config
from headstart.planning.dcpt_law.plan import RATE_SHARE, WARMUP_STEPS
from headstart.verbs._adopt import adopt, asked_of
from headstart.verbs._corpus import open_corpus
from headstart.verbs._exports import resolve_init
from headstart.verbs._plan_settings import CptSettings, SweepSettings
from headstart.verbs._sweep_points import losses_of, refuse_other_text
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain

DOMAIN, GENERAL = "new", "old"
"""The parts of --data in every run of a plan."""
PASSING = 4
"""Held-out rows that are scored at the steps that a run looks at of its own accord; those of the law are scored on all."""
LONGEST = 512
"""Tokens of a row for a model from elsewhere that has room for more: a sweep is short, and evaluates often."""
OPTIMIZER: Mapping[str, Any] = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}
"""For a model from elsewhere (Gupta et al. 2023)."""
HELD_OUT_SHARE = 0.05
"""Where no run says with which it was trained."""
FLAGS: Mapping[str, str] = {
    "--method.sequence-length": "--sequence-length",
    "--optimizer.learning-rate": "--peak",
    "--text.held-out-share": "--held-out-share",
    "--text.text-field": "--text-field",
}
"""What `pretrain` calls what a plan has too."""


def in_words_of_a_plan() -> AbstractContextManager[None]:
    """Errors of a run that a plan makes name the plan's flags; of others they say whose they are."""
    return in_words_of(flag_names(CptSettings()) | flag_names(SweepSettings()), FLAGS)


@dataclass(frozen=True)
class Origin:
    """A model that is continued, and how.

    Args:
        init: as the person named it. folder: its model folder.
        parameters: N of the law, non-embedding: 12 L d^2.
        peak: of the planned run.
        floor: the rate at which its own training ended; None: not known.
        settings: batch, row length and optimiser of every run from it.
    """

    init: Path
    folder: Path
    parameters: int
    peak: float
    floor: float | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return int(self.settings["batch"])

    @property
    def tokens_per_step(self) -> int:
        return int(self.settings["batch"] * self.settings["method.sequence_length"])


def origin_of(init: Path, peak: float | None, batch: int | None, sequence_length: int | None) -> Origin:
    """What is known of a model, with what the person says of it.

    Raises:
        UsageError: nobody knows the peak rate. BadInput: it is no causal language model.
    """
    found = resolve_init(init)
    assert found is not None
    asked = asked_of(found)
    of_run = asked.get("optimizer") or {}
    if peak is None:
        peak = _recorded_peak(asked)
    if peak is None:
        raise UsageError(f"{init} does not say at which rate it was trained.", "Give its peak rate: --peak 3e-4. It is never guessed.")
    config = read_config(found)
    positions = getattr(config, "max_position_embeddings", None) or LONGEST
    length = sequence_length or (asked.get("method") or {}).get("sequence_length") or min(int(positions), LONGEST)
    kept = {name: of_run.get(name, value) for name, value in OPTIMIZER.items()}
    kept |= {name: of_run[name] for name in ("epsilon", "clip_norm", "decay_embeddings") if name in of_run}
    settings = {"batch": batch or asked.get("batch") or 32, "method.sequence_length": length, "method.packing": "stream"}
    n = 12 * int(config.num_hidden_layers) * int(config.hidden_size) ** 2
    return Origin(init, found, n, peak, _recorded_floor(asked), settings | {f"optimizer.{name}": value for name, value in kept.items()})


def held_out_share_of(init: Path) -> float:
    """With which share the run of a model held out its documents: the same files with the same share hold out the same ones, by their hashes."""
    found = resolve_init(init)
    share = ((asked_of(found) if found is not None else {}).get("text") or {}).get("held_out_share")
    return float(share) if isinstance(share, int | float) and 0 < share < 1 else HELD_OUT_SHARE


def warned(said: Sequence[str]) -> list[str]:
    """Of the lines of a run those that say that its losses mislead; the others are of its schedule, which is the plan's."""
    found = [line.removeprefix("  WARNING").strip() for line in said if line.startswith("  WARNING")]
    misleading = ("were trained on by", "-word windows", "chat or instruction model", "are the same text", "the tokenizer has", "no better than")
    return [line for line in found if any(words in line for words in misleading)]


def _recorded_peak(asked: Mapping[str, Any]) -> float | None:
    rate = (asked.get("optimizer") or {}).get("learning_rate")
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def _recorded_floor(asked: Mapping[str, Any]) -> float | None:
    """The last rate of a run of ours that had an ordinary schedule."""
    peak, schedule = _recorded_peak(asked), asked.get("schedule") or {}
    if peak is None or not schedule:
        return None
    share = 1.0 if schedule.get("name") == "constant" else schedule.get("minimum_share", 0.0)
    return peak * float(share) or None


def named_data(
    domain: Sequence[str], general: Sequence[str], domain_held_out: Sequence[str] = (), general_held_out: Sequence[str] = ()
) -> tuple[str, ...]:
    """--data of every run of a plan. The order of names is always the same: it decides the order of rows."""
    entries = [f"{DOMAIN}={path}" for path in domain] + [f"{DOMAIN}:held-out={path}" for path in domain_held_out]
    return (*entries, *(f"{GENERAL}={path}" for path in general), *(f"{GENERAL}:held-out={path}" for path in general_held_out))


def trained_tokens(folder: Path) -> int:
    """Tokens of a store that are trained on."""
    store = open_text_store(folder)
    kept = ~(np.asarray(store.held_out) | np.asarray(store.dropped))
    return int(np.diff(store.document_offsets)[kept].sum())


def held_out_tokens(entry: Mapping[str, Any]) -> int:
    """Tokens of a part that it is measured on."""
    store = open_text_store(Path(entry["store"]))
    lengths = np.diff(store.document_offsets)
    return int(lengths.sum() if entry.get("all_held_out") else lengths[np.asarray(store.held_out)].sum())


def texts_of(data: Sequence[str], settings: Mapping[str, Any], origin: Origin, out: Path) -> dict[str, int]:
    """Part -> its training tokens, of the stores that runs of these settings open: what is raw is prepared, as they would.

    Args:
        out: the folder of any such run.
    """
    method = methods.load("causal-lm")
    given = {**origin.settings, **settings, "data": tuple(data), "init": origin.init, "mix": mix(0.5), "out": out}
    config = replace_nested(preset_config(method, "tiny")[1], given)
    with in_words_of_a_plan():
        config, _ = adopt(config, dict.fromkeys(given, "argument"), method, origin.folder)
        corpus = open_corpus(method, config, out, origin.folder)
    return {name: trained_tokens(store.folder) for name, store in zip(corpus.names, corpus.stores, strict=True)}


def mix(ratio: float) -> str:
    """--mix at r_d; what is left of 1 is written without the noise of subtraction."""
    return f"{DOMAIN}={ratio:g},{GENERAL}={1 - ratio:.12g}"


@dataclass(frozen=True)
class Sweep:
    """What the runs of a sweep share.

    Args:
        data: `named_data`. settings: of every run, beside those of its model.
        told: warnings that were said already. texts: what the held-out texts of the runs before are known by.
    """

    folder: Path
    data: tuple[str, ...]
    steps: int
    evaluate_at: tuple[int, ...]
    settings: Mapping[str, Any]
    keep_weights: bool = False
    say: Callable[[str], None] = print
    told: set[str] = field(default_factory=set)
    texts: dict[str, tuple[str, Path]] = field(default_factory=dict)

    def constant(self, origin: Origin, ratio: float, seed: int, name: str = "") -> Path:
        """A run at half the planned peak, constant after its warm-up."""
        rate = {"schedule.name": "constant", "schedule.warmup_steps": WARMUP_STEPS, "optimizer.learning_rate": RATE_SHARE * origin.peak}
        return self.run(origin, ratio, seed, rate, name or constant_name(origin, ratio, seed))

    def run(self, origin: Origin, ratio: float, seed: int, rate: Mapping[str, Any], name: str) -> Path:
        """One run, or what an earlier call left of it. Returns its folder."""
        out = self.folder / "runs" / name
        if not is_measured(out, self.evaluate_at[-1]):
            settings = {
                **origin.settings,
                "trainer.evaluate_rows": origin.batch,
                "trainer.evaluate_every": self.steps,
                "trainer.evaluate_at": self.evaluate_at,
                "trainer.part_rows": PASSING,
                "trainer.keep_checkpoints": 1,
                **self.settings,
                **rate,
            }
            settings |= {"budget.steps": self.steps, "init": origin.init, "mix": mix(ratio), "seed": seed, "out": out}
            said: list[str] = []
            with in_words_of_a_plan():
                pretrain("causal-lm", list(self.data), say=said.append, **settings)
            for warning in warned(said):
                if warning not in self.told:
                    self.told.add(warning)
                    self.say(f"  ! {warning}")
        refuse_other_text(out, read_run(out), (DOMAIN, GENERAL), self.texts)  # files that changed since the run before
        if not self.keep_weights:
            forget_weights(out)
        found = final_losses(out, self.steps)
        told = ", ".join(f"{part} {found[part]:.4f}" for part in (GENERAL, DOMAIN))
        self.say(f"  {name}: {self.steps:,} steps, held-out loss {told}")
        return out


def constant_name(origin: Origin, ratio: float, seed: int) -> str:
    """The folder of a run of a sweep at a constant rate."""
    return f"n{origin.parameters}-r{ratio:g}-seed-{seed}"


def is_measured(run: Path, last: int) -> bool:
    """Whether a run is done and its last look is in its file; its weights may be gone."""
    if not (run / "run.json").is_file():
        return False
    try:
        return read_run(run).get("status") == "done" and len(losses_of(run, (DOMAIN, GENERAL)).get(last, {})) == 2
    except BadInput:
        return False


def forget_weights(run: Path) -> None:
    """Removes the weights of a finished run."""
    for name in ("checkpoints", "export"):
        shutil.rmtree(run / name, ignore_errors=True)


def final_losses(run: Path, step: int) -> dict[str, float]:
    """Part -> held-out loss after the last step of a run.

    Raises:
        BadInput: one of them is no finite number.
    """
    found = losses_of(run, (DOMAIN, GENERAL)).get(step, {})
    if len(found) < 2:
        missing = next(part for part in (GENERAL, DOMAIN) if part not in found)
        mend = "Its rate was too high for this model: plan with a lower --peak, in another --out."
        raise BadInput(f"has no finite held-out loss of '{missing}' after step {step:,}.", mend, file=run)
    return found


def before_training(run: Path) -> dict[str, float]:
    """Part -> held-out loss at step 0: of the model that is continued."""
    found = losses_of(run, (DOMAIN, GENERAL)).get(0, {})
    if len(found) < 2:
        raise BadInput("lacks the held-out losses before step 1.", "Delete this run; the same command makes it again.", file=run)
    return found
