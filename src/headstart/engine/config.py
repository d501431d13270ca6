"""What a person can set of the engine and of a method. No torch here: the command line reads its flags against these, and must answer at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from headstart.catalog import Card
from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.engine.trackers import Tracker

OptimizerName: TypeAlias = Literal["adamw", "adam-uncorrected", "lamb", "muon", "sgd"]
Mode: TypeAlias = Literal["ddp", "fsdp"]


@dataclass
class OptimizerConfig:
    """Which optimiser, and its settings."""

    name: OptimizerName = "adamw"
    """adamw, adam-uncorrected (BERT, ELECTRA), lamb (batches of tens of thousands), muon, or sgd: plain gradients with momentum
    --optimizer.beta1, whose rates are far higher."""
    learning_rate: float = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    beta1: float = 0.9
    """Decay of the mean of the gradients."""
    beta2: float = 0.999
    """Decay of the mean of the squared gradients."""
    epsilon: float = 1e-8
    """Added to the root of the second moment. BERT and ELECTRA: 1e-6."""
    weight_decay: float = 0.01
    """Decoupled weight decay; norms, biases and vectors never decay."""
    decay_embeddings: bool = True
    """Whether embedding tables decay. BERT and ELECTRA: yes."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this global norm; None does not clip."""
    clip_each: bool = False
    """Clip each tensor by its own norm instead of all by theirs together (the released code of DropPos)."""
    layer_decay: float = 1.0
    """Fine-tuning: each layer below the head learns this much slower. ELECTRA: 0.8, large 0.9."""
    official_llrd_gap: bool = False
    """True leaves a depth empty below the head, as the official ELECTRA code does: its last layer has layer_decay^2 (google-research/electra#51)."""
    muon_momentum: float = 0.95
    """Muon's momentum."""
    fused: bool | None = None
    """Fused kernels; None takes them where the device has them."""

    def check(self, of: str = "") -> None:
        """Refuses what no run can have.

        Args:
            of: what stands before the name of a flag, `--optimizer.`; nothing: fields are named as in Python, for whoever has other flags.

        Raises:
            UsageError: the first setting outside its range.
        """

        def refuse(wrong: bool, name: str, mend: str) -> None:
            if wrong:
                raise UsageError(f"{of + name.replace('_', '-') if of else name} is {getattr(self, name)}.", mend)

        if self.name not in OptimizerName.__args__:  # type: ignore[attr-defined]
            raise UsageError(f"There is no optimiser '{self.name}'.", f"Choose one of: {', '.join(OptimizerName.__args__)}.")  # type: ignore[attr-defined]
        refuse(not 0 <= self.learning_rate < math.inf, "learning_rate", "Give a positive number, for example 1e-3.")
        refuse(not 0 <= self.epsilon < math.inf, "epsilon", "Give a small positive number, for example 1e-8.")
        refuse(not 0 <= self.weight_decay < math.inf, "weight_decay", "Give 0 for none, or a positive number, for example 0.01.")
        refuse(not 0 < self.layer_decay <= 1, "layer_decay", "Give a number above 0 and at most 1; 1 gives all layers the same rate.")
        refuse(not 0 <= self.muon_momentum < 1, "muon_momentum", "Give a number from 0 up to, but not, 1.")
        refuse(self.clip_norm is not None and not self.clip_norm > 0, "clip_norm", "Give a positive norm, or none to leave gradients as they are.")


@dataclass
class TrainerConfig:
    """How the engine runs; nothing here changes what a method learns, `ema_decay` apart."""

    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: int | None = None
    """Steps between held-out evaluations and probes; None: 20 times in a run."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; None: about every five minutes, at least four times in a run."""
    checkpoint_folder: str | None = None
    """Where checkpoints go: a folder, or an fsspec URL such as s3://bucket/runs/mine; None: into the run folder."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    keep_every: int | None = None
    """Checkpoints whose step is a multiple of it are kept for ever."""
    stop_at: int | None = None
    """Stop after this step with a checkpoint and its export; the schedule stays that of the whole budget, and the same command without it goes on."""
    evaluate_rows: int = 256
    """Held-out rows that an evaluation scores."""
    part_rows: int = 64
    """Held-out rows of each named part of --data that are scored at steps 1, 2, 4, 8 ... and then regularly; before step 1 and at the end all are."""
    evaluate_at: tuple[int, ...] = ()
    """Further steps after which the named parts are scored, whole."""
    micro_batch: int | None = None
    """Rows of one forward and backward pass; None: what fits into memory."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU, where the budget repays the compilation and a step, tried, is faster by it."""
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """Replay the whole update as one CUDA graph; auto: for small models on a GPU."""
    parallel: Mode = "ddp"
    """Under torchrun: ddp (every process has the whole model) or fsdp (parameters, gradients and optimiser state are cut over the processes)."""
    activation_checkpointing: bool = False
    """Keep only the layers' inputs for the backward pass and compute the rest again: less memory, about a third more time."""
    trackers: tuple[Tracker, ...] = ()
    """Services that get the metrics too: wandb, mlflow (pip install 'headstart[trackers]'); each reads its own environment variables."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights with this decay (0.9999 is usual); evaluations and the export use it."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a step's loss or gradient is NaN or infinite: stop, with the weights as they were before it and the module that made it named; or leave
    the step out and go on."""
    max_skipped: int = 10
    """A run that leaves steps out stops when there are more than this, in all."""

    @property
    def capture(self) -> Literal["auto", "on", "off"]:
        """`cuda_graph`, but off where activations are computed again: that reads the generators' states, which no capture allows."""
        return "off" if self.activation_checkpointing else self.cuda_graph


@dataclass(frozen=True)
class Preset:
    """A named size of a method, with what its paper trained it with.

    Args:
        method: the method's Config.
        batch: global batch in rows.
        optimizer: settings that differ from the defaults of that group, by name.
        schedule: likewise.
        data: likewise, of the group that the method's kind of data has (`--text`).
        steps: the paper's number of updates, for the plan; None when the budget decides.
    """

    method: Any
    batch: int
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None


@dataclass(frozen=True)
class Sizing:
    """Which preset a method on images takes by the images, where a person names neither a preset nor a size (`verbs._sizing` has the rule).

    Args:
        usual: the preset that most get; its patches grow with the images.
        large: the preset for many large images on a GPU, as it is; None: there is none.
        bands: the preset for images of more than three channels, as it is; None: `usual`.
    """

    usual: str = "tiny"
    large: str | None = None
    bands: str | None = None


@dataclass(frozen=True)
class Settings:
    """What can be set of a method. A `Method` class has the same attributes; a method that keeps its settings apart from its networks, in a
    `config.py` of its own, names them there once (`SETTINGS`), and its command line needs no torch."""

    card: Card
    Config: type
    presets: Mapping[str, Preset]
    DataConfig: type = TextConfig  # how its sources become a store
    data_group: str = "text"  # the flags of DataConfig: --text.vocab-size and so on
    sizing: Sizing | None = None  # how the data chooses a preset; None: `tiny` is taken
