"""One training of a backbone under a task head, and its predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.rng import mix_int
from headstart.engine.optim import OptimizerConfig, build_optimizer, clip_gradients, set_learning_rate
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import autocast, precision_of
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.epoch_loss import EpochLoss
from headstart.tasks.regularise import Regulariser, refuse_without_classes
from headstart.tasks.rows import DeviceRows, Rows, epoch_batches
from headstart.tasks.task import Head, Task

EVAL_BATCH = 64


class FineTuned(nn.Module):
    """A backbone under a task head. Parameters are named encoder.* and head.*, which is what layer-wise rates go by."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder.module
        self.head = head
        self._hidden_states = encoder.hidden_states

    def loss(self, batch: dict[str, Tensor], regulariser: Regulariser | None = None) -> Tensor:
        """The loss summed over the examples of the batch."""
        hidden = self._hidden_states(batch)
        if regulariser is None or not regulariser.noisy:
            return self.head.loss(hidden, batch)
        clean = self.head.outputs(hidden, batch)["logits"]  # the loss and the divergence are of the same answer, with one draw of dropout
        task = F.cross_entropy(clean, batch["label"], reduction="sum")
        return task + regulariser.divergence(self.encoder, lambda: self.outputs(batch)["logits"], clean)

    def outputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the task makes predictions of."""
        return self.head.outputs(self._hidden_states(batch), batch)


def train(
    task: Task,
    encoder: Encoder,
    rows: Rows,
    config: FinetuneConfig,
    learning_rate: float,
    seed: int,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[FineTuned, float, int]:
    """Trains a new head and the encoder (in place) for int(ceil(rows / batch) * epochs) steps.

    Returns:
        the model in evaluation mode, the mean training loss an example over the last epoch, and the number of steps.
    """
    refuse_without_classes(config.regulariser, task.name)
    a_batch = min(config.batch, len(rows))
    steps_an_epoch = math.ceil(len(rows) / a_batch)
    total = max(1, int(steps_an_epoch * config.epochs))
    schedule = ScheduleConfig(name="electra", warmup_share=config.warmup_share)
    precision = precision_of(config, device)
    source = DeviceRows(rows, _pad_id(encoder), device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mix_int(seed) >> 1)
        model = FineTuned(encoder, task.head(encoder)).to(device).train()
        optimizer = build_optimizer(model, _optimizer(config, learning_rate), encoder.n_layers)
        regulariser = Regulariser(config.regulariser, model.encoder, optimizer, learning_rate)
        parameters = list(model.parameters())
        losses = EpochLoss(total, learning_rate, device, say)
        for step in range(total):
            if step % steps_an_epoch == 0:
                batches = epoch_batches(source.lengths, a_batch, seed, step // steps_an_epoch)
                losses.begin_epoch()
            chosen = batches[step % steps_an_epoch]
            set_learning_rate(optimizer, learning_rate * multiplier(step, total, schedule))
            optimizer.zero_grad(set_to_none=True)
            for part in np.array_split(chosen, math.ceil(len(chosen) / (config.micro_batch or len(chosen)))):
                with autocast(device, precision):
                    loss = model.loss(source.batch(part), regulariser)
                (loss if config.loss_reduction == "sum" else loss / len(chosen)).backward()
                losses.add(loss)
            clip_gradients(parameters, config.clip_norm)
            regulariser.step()
            losses.end_step(step, len(chosen))
    return model.eval(), losses.mean(), total


@torch.no_grad()
def predict(model: FineTuned, task: Task, rows: Rows, data: Any, encoder: Encoder, config: FinetuneConfig, device: torch.device) -> list[Any]:
    """One prediction a record. Rows of similar length are scored together; nothing waits for the device until all are done."""
    source = DeviceRows(rows, _pad_id(encoder), device)
    precision = precision_of(config, device)
    order = np.argsort(rows.lengths, kind="stable")
    parts = np.split(order, range(EVAL_BATCH, len(order), EVAL_BATCH))
    model.eval()
    found = []
    for part in parts:
        with autocast(device, precision):
            found.append(model.outputs(source.batch(part)))
    outputs: dict[str, np.ndarray] = {}
    for name, example in found[-1].items():  # the longest rows come last
        outputs[name] = np.zeros((len(rows), *example.shape[1:]), dtype=example.cpu().numpy().dtype)
        for part, values in zip(parts, found, strict=True):
            value = values[name].cpu().numpy()
            index: Any = (part, *(slice(size) for size in value.shape[1:]))
            outputs[name][index] = value
    return task.predictions(outputs, rows, data)


def _optimizer(config: FinetuneConfig, learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig(
        name=config.optimizer,
        learning_rate=learning_rate,
        epsilon=1e-6,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        layer_decay=config.layer_decay,
        official_llrd_gap=config.official_llrd_gap,
    )


def _pad_id(encoder: Encoder) -> int:
    return encoder.tokenizer.pad_token_id if encoder.tokenizer.pad_token_id is not None else 0
