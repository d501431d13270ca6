"""What `pretrain` takes: the same fields in Python, on the command line and in YAML."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headstart import interventions
from headstart.core.bounds import BELOW_1, COUNT, COUNT_FROM_0, FROM_0, SEED, SHARE, SHARE_ABOVE_0, refuse_outside
from headstart.core.config import flatten, replace_nested
from headstart.core.device_names import check_device
from headstart.core.errors import BadInput, UsageError
from headstart.core.places import refuse_folder
from headstart.core.words import did_you_mean
from headstart.data.listing import absent, is_store
from headstart.data.text.epoch_config import EpochsConfig
from headstart.engine.budget import Budget
from headstart.engine.config import OptimizerConfig, Settings, TrainerConfig
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.trackers import refuse_missing
from headstart.verbs._parts import check_parts, parts_of, path_of

if TYPE_CHECKING:
    from headstart.engine.method import Method

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
SMOKE_RECORDS = 64
SMOKE_STEPS = 8
LONG_RUN_STEPS = 10_000

BOUNDS = {
    **dict.fromkeys(("batch", "trainer.micro_batch", "trainer.log_every", "trainer.evaluate_every", "trainer.checkpoint_every"), COUNT),
    **dict.fromkeys(("trainer.keep_checkpoints", "trainer.keep_every", "trainer.stop_at", "trainer.max_skipped"), COUNT),
    **dict.fromkeys(("trainer.evaluate_rows", "trainer.part_rows", "trainer.evaluate_at"), COUNT),
    **dict.fromkeys(("optimizer.beta1", "optimizer.beta2", "trainer.ema_decay"), BELOW_1),
    **dict.fromkeys(("schedule.warmup_share", "schedule.minimum_share", "schedule.decay_share"), SHARE),
    "schedule.run_share": SHARE_ABOVE_0,
    "schedule.warmup_steps": COUNT_FROM_0,
    "schedule.power": FROM_0,
    "mixture.weights": FROM_0,
    "seed": SEED,
}
"""Of every run; a method, its data and each intervention have their own."""

COMMON_FLAGS = (
    "data", "out", "preset", "seed", "budget.steps", "budget.tokens", "budget.flops", "budget.minutes", "init", "mix", "batch", "device",
    "precision", "smoke", "dry_run", "resume", "json", "debug",
)  # fmt: skip
"""The frozen list: a new flag goes under the prefix of its group."""


@dataclass
class ProbeConfig:
    """A labelled set that the run measures itself on."""

    labels: Path | None = None
    """A .csv, .tsv, .jsonl or .parquet file with labelled records; of images also a folder with a folder for each class, or a list of paths and
    classes. The verdict at the end compares with a random start on it."""
    text_field: str = "text"
    """Its field with the text."""
    image_field: str | None = None
    """Its column or array with the images; None: "image", or the only one that can be images."""
    label_field: str = "label"
    """Its field with the class."""


@dataclass
class MixtureConfig:
    """How several entries of --data are mixed."""

    weights: tuple[float, ...] = ()
    """One weight for each entry of --data; none: every entry as large as it is."""
    by: Literal["tokens", "documents", "rows"] = "tokens"
    """What the weights count. The proportions hold exactly in every window of a run."""


@dataclass
class PretrainConfig:
    """A pre-training run. `--optimizer`, `--schedule`, `--trainer`, `--probe`, `--mixture`, `--epochs`, `--method`, the
    data's own (`--text`) and that of each intervention (`--sparsity`) are groups of settings."""

    data: tuple[str, ...] = ()
    """Files, folders (of `headstart curate` too), globs, prepared stores, or builtin:python-docs; several are mixed. Named parts (new=FILE old=FILE,
    old:held-out=FILE) are mixed by --mix, and each one's held-out loss is measured apart."""
    out: Path | None = None
    """The run folder; None: runs/METHOD-PRESET-SEED."""
    preset: str = "tiny"
    """Size of the model; `headstart show METHOD` lists them. Where neither it nor a size of images is given, these choose."""
    seed: int = 0
    """Decides initialisation, order and every random draw."""
    budget: Budget = field(default_factory=Budget)
    """When the run ends; give exactly one."""
    init: Path | None = None
    """A run, an export or a transformers folder to continue from."""
    mix: str | None = None
    """Shares of the named parts of --data (new=new.jsonl old=old.jsonl) in the tokens: new=0.7,old=0.3. None: each part as large as it is. Or a .yaml
    file of the old mixture, a list of {store, share, replace: true where the new text stands in}."""
    batch: int | None = None
    """Global batch in rows; None: the preset's."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16", "fp8"] = "auto"
    """auto: bf16 on a GPU; on a CPU the faster of the two in a short trial. fp8: dense layers multiply in 8-bit floating point, the rest is bf16."""
    smoke: bool = False
    """The whole path on 64 records and a few steps."""
    dry_run: bool = False
    """Print the plan, rehearse, stop."""
    resume: Literal["auto", "never"] = "auto"
    """auto: the same command continues; never: refuse a folder that holds a run."""
    json: bool = False
    """Print the result as JSON."""
    debug: bool = False
    """Show tracebacks."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    epochs: EpochsConfig = field(default_factory=EpochsConfig)
    method: Any = None
    """The method's own settings."""

    @property
    def data_config(self) -> Any:
        """How the sources become a store: the group that the method names (`--text` for methods on text)."""
        return getattr(self, self.data_group)

    data_group: ClassVar[str]

    @property
    def global_batch(self) -> int:
        """Rows of an update."""
        return 32 if self.batch is None else self.batch


def config_class(method: Settings | type[Method]) -> type[PretrainConfig]:
    """PretrainConfig with the method's own Config, the settings of its data and those of every intervention, so that the command line knows their
    fields."""
    return _config_class(method.Config, method.data_group, method.DataConfig)


@cache
def _config_class(of_method: type, data_group: str, of_data: type) -> type[PretrainConfig]:
    return dataclasses.make_dataclass(
        "PretrainConfig",
        [
            ("method", of_method, field(default_factory=of_method)),
            (data_group, of_data, field(default_factory=of_data)),
            *((entry.group, entry.Config, field(default_factory=entry.Config)) for entry in interventions.settings()),
        ],
        bases=(PretrainConfig,),
        namespace={"__doc__": PretrainConfig.__doc__, "data_group": data_group},
    )


def preset_config(method: Settings | type[Method], preset: str) -> tuple[PretrainConfig, PretrainConfig]:
    """(defaults, the preset on top of them).

    Raises:
        UsageError: the method has no such preset.
    """
    if not isinstance(preset, str) or preset not in method.presets:  # a YAML file may say anything
        mend = f"{did_you_mean(str(preset), method.presets)}Its presets: {', '.join(method.presets)}."
        raise UsageError(f"{method.card.slug} has no preset '{preset}'.", mend)
    defaults = config_class(method)()
    chosen = method.presets[preset]
    return defaults, dataclasses.replace(
        defaults,
        preset=preset,
        method=chosen.method,
        batch=chosen.batch,
        optimizer=dataclasses.replace(defaults.optimizer, **chosen.optimizer),
        schedule=dataclasses.replace(defaults.schedule, **chosen.schedule),
        **{method.data_group: replace_nested(defaults.data_config, chosen.data)},
    )


def run_folder(slug: str, config: PretrainConfig) -> Path:
    """Where the run lies: --out, or runs/METHOD-PRESET-SEED."""
    return config.out or Path("runs") / (f"{slug}-{config.preset}-{config.seed}" + ("-smoke" if config.smoke else ""))


def smoke(config: PretrainConfig) -> PretrainConfig:
    """The same settings, which `check` has seen, on 64 records and a few steps."""
    trainer = dataclasses.replace(config.trainer, log_every=1, evaluate_every=4, checkpoint_every=4, evaluate_rows=8)
    return dataclasses.replace(config, trainer=trainer, budget=Budget(steps=SMOKE_STEPS), batch=8 if config.batch is None else min(config.batch, 8))


def long_run(config: PretrainConfig) -> PretrainConfig:
    """The config, with the budget of a long run where it has none: phases that a short run cuts short then have their full length."""
    given = any(value is not None for value in flatten(config.budget).values())
    return config if given else dataclasses.replace(config, budget=Budget(steps=LONG_RUN_STEPS))


def check(config: PretrainConfig) -> None:
    """Refuses, before anything is read or written, values that no run can have.

    Raises:
        UsageError: the first one, by its flag.
    """
    check_numbers(config)
    if not config.data:
        raise UsageError("No data is given.", "Give --data FILE_OR_FOLDER, or --data builtin:python-docs for the documentation on this machine.")
    if not config.smoke or any(value is not None for value in flatten(config.budget).values()):  # one is of the run that is rehearsed
        config.budget.unit()
    check_parts(config.data, config.mix, config.init is not None)
    config.epochs.check()
    weights = config.mixture.weights
    if weights and parts_of(config.data):
        raise UsageError("--mixture.weights is for entries of --data without names.", "Give the shares of named parts as --mix new=0.7,old=0.3.")
    if weights and len(weights) != len(config.data):
        raise UsageError(f"--mixture.weights has {len(weights)} numbers for {len(config.data)} entries of --data.", "Give one weight for each.")
    if weights and not any(weights):
        raise UsageError("--mixture.weights are all 0.", "Give at least one number above 0.")
    refuse_missing(config.trainer.trackers)
    if config.init is None and (check_method := getattr(config.method, "check", None)) is not None:  # a model of --init brings sizes of its own
        prepared = any(is_store(path_of(entry)) for entry in config.data)
        check_method(None if prepared else config.data_config)


def check_numbers(config: PretrainConfig) -> None:
    """The part of `check` that asks for nothing to be given: numbers, names of devices.

    Raises:
        UsageError: the first one, by its flag.
    """
    refuse_outside(config, BOUNDS)
    check_device(config.device)
    config.optimizer.check("--optimizer.")
    multiplier(0, 10, config.schedule)
    if (check_own := getattr(config.method, "check_own", None)) is not None:  # what a model of --init does not bring
        check_own()


def refuse_absent(config: PretrainConfig) -> None:
    """Refuses what is plainly not there.

    Raises:
        BadInput: an entry of --data, or the labels of --probe.
        UsageError: the folder of --init.
    """
    refuse_absent_data([path_of(entry) for entry in config.data])
    refuse_absent_labels(config)
    if config.init is not None:
        refuse_no_folder(config.init)


def refuse_unwritable(config: PretrainConfig, folder: Path) -> None:
    """Raises UsageError where a new run could not write; one that goes on says itself what its folder lacks."""
    if not (folder / "run.json").exists():
        refuse_folder(folder)
    place = config.trainer.checkpoint_folder
    if place is not None and "://" not in place:
        refuse_folder(place, "--trainer.checkpoint-folder")


def refuse_absent_labels(config: PretrainConfig) -> None:
    """Raises BadInput where the labelled records of --probe.labels are plainly not there: they are read once the data is prepared."""
    labels = config.probe.labels
    if labels is not None and not labels.exists():
        raise BadInput("does not exist.", "Check the path of --probe.labels, or leave it out.", file=labels)
    if labels is not None and config.data_group == "text" and labels.is_dir():
        raise BadInput("is a folder.", "Give --probe.labels a .csv, .tsv, .jsonl or .parquet file with labelled texts.", file=labels)


def refuse_absent_data(data: Sequence[str]) -> None:
    """Raises BadInput for an entry that is plainly not there; a pattern or a built-in corpus is left to whoever reads it."""
    for entry in data:
        if not (entry.startswith("builtin:") or os.path.lexists(entry) or glob.has_magic(entry)):
            raise absent(entry)


def refuse_no_folder(model: Path) -> None:
    """Raises UsageError where a model is neither a folder nor a file of weights, which vision transformers come as. No flag is named: each verb has
    another."""
    if not (model.is_dir() or (model.is_file() and model.suffix in WEIGHT_FILES)):
        raise UsageError(f"{model} is not a folder.", "Give a run, an export, or a transformers folder on this disk.")


def flag(name: str) -> str:
    """A dotted field name as the command line writes it."""
    return name.replace("_", "-")
