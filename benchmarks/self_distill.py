"""A student's step of self-distillation against the official loop (seanie12/self-distillation) on transformers' modules: images a second.

python -m benchmarks.self_distill [--preset small] [--batch 8] [--device cpu] [--out benchmarks/results/self_distill-small-cpu.json]

The peer makes two backward passes (MAE, then the distance of the class token), asks its teacher in every step, and updates with torch's AdamW. Ours
makes one backward pass and takes the teacher's features from the table. Both begin with pixels of the network's own size on the device, in fp32, and
take turns; the median of the rounds counts. Beside it ours with the teacher asked in every step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from benchmarks.parts import image_method_of, in_turns, median_ratio
from benchmarks.result import write_result
from headstart.engine.guard import Guard
from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.engine.update import Update
from headstart.interventions.self_distill.config import SelfDistillConfig
from headstart.interventions.self_distill.intervention import SelfDistill
from headstart.methods.mae.config import PRESETS, MAEConfig

ROWS = 64


class Images:
    """Random images as a store keeps them."""

    unit, length = "images", 1

    def __init__(self, side: int) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (ROWS, 3, side, side), dtype=np.uint8)

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": self.images[rows]}


def ours(config: MAEConfig, batch: int, device: torch.device, features: str) -> Callable[[], Tensor]:
    """One update of the student's stage."""
    method = SelfDistill(image_method_of("mae", config, device), SelfDistillConfig(rounds=1, features=features), 0).to(device).train()  # type: ignore[arg-type]
    parts = method.training_rows([Images(config.image_size)])
    rows = {name: torch.from_numpy(value).to(device) for name, value in parts[0].batch(np.arange(batch)).items()}
    optimizer = build_optimizer(method, OptimizerConfig(learning_rate=1e-4, beta2=0.95, clip_norm=None))
    update = Update(method, optimizer, clip_norm=None, precision="fp32", device=device, seed=0, total_steps=1000, guard=Guard(device, "stop", 0))
    return lambda: update([rows], [torch.arange(batch, device=device)], 0, "student")["loss"]


def official(config: MAEConfig, batch: int, device: torch.device) -> Callable[[], Tensor]:
    """trainer.py of the official code, on the same sizes."""
    shape = ViTMAEConfig(
        hidden_size=config.hidden_size, num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        intermediate_size=4 * config.hidden_size, image_size=config.image_size, patch_size=config.patch_size, norm_pix_loss=True,
        decoder_hidden_size=config.decoder_hidden_size, decoder_num_hidden_layers=config.decoder_layers,
        decoder_num_attention_heads=config.decoder_heads, decoder_intermediate_size=4 * config.decoder_hidden_size,
    )  # fmt: skip
    student = ViTMAEForPreTraining(shape).to(device).train()
    teacher = ViTMAEModel(shape).to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01)
    pixels = torch.randn(batch, 3, config.image_size, config.image_size, device=device)
    order = torch.arange((config.image_size // config.patch_size) ** 2, device=device).expand(batch, -1).float()

    def whole(network: nn.Module) -> Tensor:
        """The class token of the complete image: nothing is masked, patches stay in order."""
        settings: Any = network.embeddings.config  # type: ignore[union-attr]
        settings.mask_ratio, before = 0.0, settings.mask_ratio
        found = network(pixel_values=pixels, noise=order).last_hidden_state[:, 0]
        settings.mask_ratio = before
        return found

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = student(pixel_values=pixels).loss
        loss.backward()
        with torch.no_grad():
            target = whole(teacher)
        distance = (whole(student.vit) - target).square().sum(-1).mean()
        distance.backward()
        optimizer.step()
        return loss.detach()

    return step


def timed(step: Callable[[], Tensor], count: int, device: torch.device) -> Callable[[], float]:
    """Seconds of a step, the mean of `count`."""

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - begin) / count

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=list(PRESETS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    config = MAEConfig(**{**vars(PRESETS[arguments.preset].method), "crop_smallest": 1.0, "flip": 0.0})
    ways = {
        "stored": ours(config, arguments.batch, device, "stored"),
        "online": ours(config, arguments.batch, device, "online"),
        "official": official(config, arguments.batch, device),
    }
    for step in ways.values():
        step()
    found = in_turns({name: timed(step, arguments.steps, device) for name, step in ways.items()}, arguments.rounds)
    rates = {name: round(arguments.batch / statistics.median(seconds), 2) for name, seconds in found.items()}
    print(", ".join(f"{name} {rate} images/s" for name, rate in rates.items()))
    name = f"self_distill-{arguments.preset}-{device.type}"
    write_result(
        arguments.out or Path(f"benchmarks/results/{name}.json"),
        name=name,
        what=f"images/s of a student's step, MAE {arguments.preset}, batch {arguments.batch}, fp32, {torch.get_num_threads()} thread(s)",
        ours={"images_per_second": rates["stored"]},
        peer={"images_per_second": rates["official"], "what": "the official loop on transformers' ViTMAEForPreTraining"},
        ratio=1 / median_ratio(found["stored"], found["official"]),
        must=1.2,
        aim=1.5,
        command=f"python -m benchmarks.self_distill --preset {arguments.preset} --batch {arguments.batch} --device {arguments.device}",
        online={"images_per_second": rates["online"], "ratio": round(1 / median_ratio(found["online"], found["official"]), 3)},
    )


if __name__ == "__main__":
    main()
