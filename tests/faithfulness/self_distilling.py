"""Small networks under self-distillation, for its tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.method import Batch, Context, Method
from headstart.engine.schedules import ScheduleConfig
from headstart.engine.trainer import Trainer
from headstart.interventions.self_distill.config import SelfDistillConfig
from headstart.interventions.self_distill.intervention import SelfDistill
from headstart.methods.droppos.config import DropPosConfig
from headstart.methods.droppos.method import DropPos
from headstart.methods.mae.method import MAE
from headstart.methods.mlm.config import MLMConfig
from headstart.methods.mlm.method import MLM
from tests.engine.toy import trainer_of
from tests.faithfulness.test_mae import facts, pixels, small
from tests.running import records

ROWS, BATCH = 20, 8


def mae(seed: int = 0, **changes: Any) -> MAE:
    torch.manual_seed(seed)
    return MAE(small(**{"crop_smallest": 1.0, "flip": 0.0, **changes}), facts())


def mlm(dropout: float = 0.0, **changes: Any) -> MLM:
    torch.manual_seed(0)
    sizes = {"architecture": "bert", "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "sequence_length": 16}
    return MLM(MLMConfig(**{**sizes, "dropout": dropout, **changes}), texts())


def droppos() -> DropPos:
    """Its loss sums two means over different items."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_layers": 2, "num_heads": 3, "decoder_hidden_size": 32, "decoder_layers": 1, "decoder_heads": 4}
    return DropPos(DropPosConfig(**sizes, multi_task=True, crop_smallest=1.0, flip=0.0), facts())


def texts() -> Any:
    """What a method on texts reads of a store."""
    ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "bos": 2, "eos": 3}
    return SimpleNamespace(
        vocab_size=50,
        special_ids=ids,
        tokenizer=None,
        unigram_entropy=3.0,
        continues_word=np.zeros(50, bool),
        require_specials=lambda *names: None,
    )


def words(rows: int = BATCH, padded: bool = False) -> Batch:
    ids = torch.randint(5, 50, (rows, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(16) < 16 - torch.arange(rows)[:, None]
    return {"input_ids": ids.where(mask, 0), "attention_mask": mask} if padded else {"input_ids": ids}


def distilled(method: Method | None = None, **settings: Any) -> SelfDistill:
    found = SelfDistill(method or mae(), SelfDistillConfig(**{"rounds": 1, **settings}), seed=0)
    found.train()
    return found


def at(phase: str = "student", rows: int = 6, step: int = 0) -> Context:
    return Context(step, 100, phase, Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


@torch.no_grad()
def moved(method: Method, by: float = 0.02) -> Method:
    """The same with other weights."""
    generator = torch.Generator().manual_seed(7)
    for value in method.parameters():
        value += by * torch.randn(value.shape, generator=generator)
    return method


def apart(**settings: Any) -> SelfDistill:
    """A student that is no longer where its teacher is."""
    found = distilled(**settings)
    moved(found.teacher)
    return found


class Pixels:
    """Rows of random images."""

    unit, length = "images", 1

    def __init__(self) -> None:
        self.images = pixels(ROWS)["images"].numpy()
        self.n_tokens = self.n_documents = ROWS

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": self.images[rows]}


class Watched(SelfDistill):
    """Keeps what the networks were when each stage began."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.began: dict[str, dict[str, dict[str, Tensor]]] = {}

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        if ctx.step == 0:
            self.began.setdefault(ctx.phase, {name: weights(getattr(self, name)) for name in ("inner", "initial", "teacher")})
        return super().loss(batch, ctx)


def weights(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainer(folder: Path, steps: int, method: Method | None = None, rate: float = 1e-2, seed: int = 0, **settings: Any) -> Trainer:
    """A run of the wrapped method on twenty images."""
    own = {name: settings.pop(name) for name in list(settings) if name in ("stop_at", "log_every", "checkpoint_every", "ema_decay")}
    wrapped = Watched(method or mae(), SelfDistillConfig(**{"rounds": 1, **settings}), seed)
    optimizer, schedule = OptimizerConfig(learning_rate=rate, beta2=0.95, clip_norm=None), ScheduleConfig("linear", warmup_share=0.0)
    own = {"log_every": 1, "checkpoint_every": 3, "keep_checkpoints": 99, **own}
    return trainer_of(wrapped, folder, steps, optimizer, schedule, parts=wrapped.training_rows([Pixels()]), seed=seed, **own)


def curve(folder: Path) -> list[tuple[str, float, float, float]]:
    return [(line["phase"], line["loss"], line["gradient_norm"], line["learning_rate"]) for line in records(folder, "metrics")]


# --- the numbered checks ----------------------------------------------------------------------------------------------------------------------------
