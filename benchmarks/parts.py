"""What several benchmarks need: a method and a trainer on random rows, ways taken in turns, exponents."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch

from headstart import methods
from headstart.backbones.kernels import use_fast_kernels
from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from headstart.engine.optim import OptimizerConfig
from headstart.engine.schedules import ScheduleConfig
from headstart.engine.trainer import Trainer, TrainerConfig
from headstart.engine.trial import Decisions

T = TypeVar("T")

SPECIAL_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}


def method_of(slug: str, config: Any, vocab: int, device: torch.device | str = "cpu") -> Any:
    """A method with random weights and the kernels of a run, without a corpus."""
    special = {"bos": vocab - 1, "eos": vocab - 1} if slug == "causal-lm" else SPECIAL_IDS
    store = SimpleNamespace(tokenizer=None, special_ids=special, vocab_size=vocab, unigram_entropy=10.0, continues_word=None)
    torch.manual_seed(0)
    method = methods.load(slug)(config, store).to(device)
    use_fast_kernels(method)
    return method.train()


def image_method_of(slug: str, config: Any, device: torch.device | str = "cpu") -> Any:
    """The same of a method on images: three channels of bytes, without a store."""
    store = SimpleNamespace(channels=3, mean=[127.5] * 3, std=[64.0] * 3, dtype=np.dtype(np.uint8))
    torch.manual_seed(0)
    method = methods.load(slug)(config, store).to(device)
    use_fast_kernels(method)
    return method.train()


class IdRows:
    """`Rows` without a store: uint16 token ids [rows, length], kept as the store keeps them, in memory or mapped."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = np.asarray(ids)  # the same memory without memmap's cost in every access
        self.length = ids.shape[1]
        self.n_tokens = ids.size

    @classmethod
    def random(cls, rows: int, length: int, vocab: int) -> IdRows:
        return cls(np.random.default_rng(0).integers(min(1000, vocab // 2), vocab - 1, (rows, length)).astype(np.uint16))

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"input_ids": self.ids.take(rows, axis=0).astype(np.int64)}


def trainer_of(method: Any, rows: IdRows, batch: int, folder: Path, *, steps: int, precision: str = "fp32", cuda_graph: bool = False) -> Trainer:
    """The trainer of a run of `steps`, as `pretrain` makes it, with what the trial would decide already decided."""
    device = next(method.parameters()).device
    names = [phase.name for phase in method.phases(steps)]
    decisions = Decisions(
        total_steps=steps,
        precision=precision,  # type: ignore[arg-type]
        micro_batch=batch,
        threads=torch.get_num_threads(),
        compile=False,
        cuda_graph=cuda_graph,
        flops_per_step=dict.fromkeys(names, 1),
        seconds_per_step=dict.fromkeys(names, 1.0),
        peak_flops=1.0,
        why={},
    )
    return Trainer(
        method,
        RunFolder(folder),
        Loader(Mixture([rows], seed=0), batch),
        held_out=None,
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(),
        config=TrainerConfig(),
        decisions=decisions,
        device=device,
        seed=0,
        say=lambda line: None,
    )


@contextmanager
def steps_of(trainer: Trainer) -> Iterator[Callable[[int], Cost]]:
    """Gives a function that makes n more steps of the run's last phase, with its logging."""
    trainer.prepare_state()
    phase, start, _ = trainer.spans[-1]
    trainer.step = start
    trainer.enter(phase, first=False)
    with trainer.batches() as batches, trainer.open_log() as log:

        def run(count: int) -> Cost:
            with cost_of(trainer.device) as cost:
                for _ in range(count):
                    trainer.advance(batches, phase)
                    if trainer.due(trainer.config.log_every):
                        trainer.log(log, batches.waited)
            return cost

        yield run


@dataclass
class Cost:
    """Seconds on the wall, and of all threads of this process: the latter hardly depend on what else runs on the machine."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def cost_of(device: torch.device) -> Iterator[Cost]:
    cost = Cost()
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    synchronize(device)
    cost.wall, cost.cpu = time.perf_counter() - wall, time.process_time() - cpu


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(ways: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each way returns, `repeats` times, in turns: another load on the machine meets all alike."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the ratios of neighbours: a slow moment of the machine, which meets both of a pair, does not count."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """k of cost = c * size^k, fitted on logarithms: 1 is linear, below it a fixed cost weighs, above it the cost outgrows the size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
