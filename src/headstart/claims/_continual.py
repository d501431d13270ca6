"""What the claims on continued pre-training share: general text, domain text, a tokenizer of the general text, and a model that is finished on it.

The upstream run is one recipe (specification of rewarm, "Claim experiment"), cached beside the claims' folders: rewarm, stability_gap and dcpt_law
train it once for a network and a seed.

    upstream = upstream_arm(CPU)                             the start of other arms
    Arm("further", "causal-lm", {...}, start=upstream)       with `continual(CPU, steps)` as the scale's settings
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headstart.claims._claim import Arm, Guard, Model, Score
from headstart.claims._data import data_folder
from headstart.claims._run import is_done, shared_folder
from headstart.claims._text import write_documents
from headstart.core.files import atomic_write, locked
from headstart.core.run import read_lines, read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.data.text.windows import windows
from headstart.interop.transformers_io import load_decoder
from headstart.objectives.token_loss import token_nll
from headstart.tasks.data import records
from headstart.verbs._parts import OLD
from headstart.verbs.forgetting import curves
from headstart.verbs.pretrain import Run, pretrain

END = "<|endoftext|>"
GENERAL, MEDICAL, CODE = "textgen", "textmed", "textcode"
SMOKE_PIECE = 1_500
"""Characters of the documents that the smoke preset cuts its few texts into, so that all splits have some."""
LEFT_PLATEAU = 1.0
"""Nats that the held-out loss of the upstream model must lie below the unigram entropy."""
OVERFIT = 0.5
"""Nats that it may lie above the training loss."""
EVALUATED = 64
"""Windows of a forward pass."""


@dataclass(frozen=True)
class Network:
    """A network, and how it is finished on the general text."""

    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int
    batch: int
    steps: int
    """Of the upstream run."""
    peak: float
    extra: bool = False
    """Train on the `extra` files too."""
    documents: int | None = None
    """The first documents alone, cut small and split anew: for the smoke preset, whose figures say nothing."""
    precision: str = "fp32"


SMOKE = Network(2, 64, 2, 64, 512, 16, 40, 3e-3, documents=8)
CPU = Network(3, 128, 4, 128, 1024, 16, 830, 3e-3)
GPU = Network(6, 384, 6, 256, 4096, 16, 1000, 2e-3, extra=True, precision="bf16")


def upstream_arm(network: Network, seeds: int | None = None, name: str = "upstream") -> Arm:
    """The run that all continued arms begin with: AdamW, warm-up 5 %, cosine to a tenth of the peak. It trains on `Data.corpora["upstream"]`.

    Args:
        seeds: None: one for each seed of the claim; 1: one for all.
    """
    settings = {
        **of_network(network),
        "budget.steps": network.steps,
        "schedule.name": "cosine",
        "schedule.warmup_share": 0.05,
        "schedule.minimum_share": 0.1,
        "trainer.evaluate_every": max(4, network.steps // 20),
    }
    return Arm(name, "causal-lm", settings, corpus="upstream", seeds=seeds, learning_rate=network.peak, shared=True)


def of_network(network: Network) -> dict[str, Any]:
    """Network, optimiser and windows: the same upstream and later."""
    return {
        "preset": "base",
        "batch": network.batch,
        "precision": network.precision,
        "method.architecture": "gpt2",
        "method.num_layers": network.layers,
        "method.hidden_size": network.width,
        "method.num_heads": network.heads,
        "method.intermediate_size": 4 * network.width,
        "method.sequence_length": network.context,
        "method.packing": "stream",
        "method.dropout": 0.0,
        "optimizer.beta1": 0.9,
        "optimizer.beta2": 0.95,
        "optimizer.epsilon": 1e-8,
        "optimizer.weight_decay": 0.1,
        "optimizer.clip_norm": 1.0,
        "trainer.evaluate_rows": network.batch,
    }


def continual(network: Network, steps: int) -> dict[str, Any]:
    """What every continued run of a network shares; its schedule is the arm's."""
    return {**of_network(network), "budget.steps": steps, "trainer.evaluate_every": max(4, steps // 20)}


# --- data -----------------------------------------------------------------------------------------------------------------------------------------


def shared_data(folder: Path) -> Path:
    """Where claims put what they share, given the folder of one claim's data: the same tokenizer at the same place for all."""
    return folder.parents[1] / "shared" / "data"


def text(name: str, network: Network, split: str, folder: Path | None = None) -> list[Path]:
    """The files of a split of textgen, textmed or textcode.

    Args:
        split: train (with `extra` where the network asks for it and the data has it), val or test.
        folder: where the few texts of a smoke preset are written; others need none.

    Raises:
        BadInput: the data is not there.
    """
    source = data_folder(name, fixture=network.documents is not None)
    if network.documents is not None:
        assert folder is not None, "the texts of a smoke preset are written somewhere"
        return [_few(source / "train.jsonl.zst", network.documents, split, folder / f"{name}-{split}.jsonl")]
    extra = source / "extra.jsonl.zst"
    return [source / f"{split}.jsonl.zst"] + [extra] * (split == "train" and network.extra and extra.is_file())


def _few(source: Path, count: int, split: str, place: Path) -> Path:
    """Some pieces of the first documents: of five the first for val, the second for test, the others for train."""
    texts = (str(record["text"]) for _, record in islice(records(source), count))
    pieces = [text[start : start + SMOKE_PIECE] for text in texts for start in range(0, min(len(text), 20 * SMOKE_PIECE), SMOKE_PIECE)]
    place.parent.mkdir(parents=True, exist_ok=True)
    kept = {"val": (0,), "test": (1,), "train": (2, 3, 4)}[split]
    return write_documents(place, (piece for number, piece in enumerate(pieces) if number % 5 in kept))


def tokenizer(network: Network, folder: Path) -> Path:
    """Byte-level BPE trained on the general training text alone; end of text is token 0. The same bytes every time."""
    place = folder / f"tokenizer-{network.vocabulary}.json"
    if not place.is_file():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=network.vocabulary, special_tokens=[END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        )
        made.train_from_iterator(texts_of(text(GENERAL, network, "train", folder)), trainer)
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as file:
            file.write(made.to_str(pretty=True).encode())
    return place


def texts_of(files: Iterable[Path]) -> Iterable[str]:
    """The texts of some files."""
    return (str(record["text"]) for file in files for _, record in records(file))


def named(**parts: Sequence[Path]) -> list[str]:
    """Entries of --data: named(new=[FILE], old_held_out=[FILE]) -> ["new=FILE", "old:held-out=FILE"]."""
    return [f"{name.replace('_held_out', ':held-out')}={path}" for name, paths in parts.items() for path in paths]


def upstream_corpus(network: Network, folder: Path) -> list[str]:
    """What the upstream run reads: the general text, named `old` as it will be."""
    return named(old=text(GENERAL, network, "train", folder), old_held_out=text(GENERAL, network, "val", folder))


# --- measuring ------------------------------------------------------------------------------------------------------------------------------------


def measured_store(files: Sequence[Path], tokenizer_file: Path, place: Path) -> TextStore:
    """Test text as tokens, all of it held out."""
    return prepare_text(list(files), place, TextConfig(tokenizer=str(tokenizer_file), held_out_share=0.0)).as_held_out()


def bits_per_byte(export: Path, store: TextStore, context: int, device: torch.device) -> Score:
    """Bits a byte of the held-out documents of a store, end of text counted, over windows as in training; of each document its bits and its bytes.

    Args:
        store: tokenised as the model wants it.
        context: tokens of a window.
    """
    nll = token_losses(export, store, context, device)
    documents = store.documents("held_out")
    tokens = store.document_offsets[documents + 1] - store.document_offsets[documents] + 1  # with its end of text
    owner = np.repeat(np.arange(len(documents)), tokens)[1:]  # the very first token is no target
    bits = np.bincount(owner, nll / math.log(2), minlength=len(documents))
    sizes = np.array([len(store.decode(store.document(int(number))).encode()) for number in documents], np.float64)
    return Score(float(bits.sum() / sizes.sum()), np.stack([bits, sizes], 1), beside={"nats a token": float(nll.mean())})


@torch.no_grad()
def token_losses(export: Path, store: TextStore, context: int, device: torch.device) -> np.ndarray:
    """float64 [targets]: -log p of every token of the held-out stream but the first, in nats."""
    network: Any = load_decoder(export)[0]
    network.to(device).eval()
    rows = windows(store, context, "held_out", [store.special_ids["eos"]])
    found = []
    for start in range(0, len(rows), EVALUATED):
        batch = {name: torch.as_tensor(value).to(device) for name, value in rows.batch(np.arange(start, min(start + EVALUATED, len(rows)))).items()}
        nll = token_nll(network(input_ids=batch["input_ids"]).logits, batch["next_ids"])
        kept = batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(nll, dtype=torch.bool)
        found.append(nll[kept].double().cpu().numpy())
    return np.concatenate(found)


def upstream_of(model: Model) -> Path | None:
    """The upstream run that a continued run began with; the run itself where it is one; None for a run from a random start."""
    init = (read_run(model.folder).get("config") or {}).get("init")
    return None if init is None else Path(init)


def upstream_guards(upstream: Path) -> list[Guard]:
    """What must hold of the upstream run, or everything looks like a random start: it has left the unigram plateau, has not begun to over-fit, and
    its training loss is not far below."""
    info, curve = read_run(upstream), curves(upstream)[OLD]
    entropy = float(info["data"][0]["unigram_entropy"])
    late = [loss for step, loss in zip(curve.steps, curve.losses, strict=True) if step >= 0.8 * curve.steps[-1]]
    logged = [float(line["loss"]) for line in read_lines(upstream / "metrics.jsonl")]
    trained = float(np.mean(logged[-max(1, len(logged) // 20) :]))
    rise, gap = late[-1] - late[0], curve.last - trained
    return [
        Guard("upstream: nats below the unigram entropy", entropy - curve.last, LEFT_PLATEAU, entropy - curve.last >= LEFT_PLATEAU),
        Guard("upstream: rise of the held-out loss in the last fifth", rise, 0.0, rise <= 0),
        Guard("upstream: held-out loss above the training loss", gap, OVERFIT, gap <= OVERFIT),
    ]


def upstream(network: Network, seed: int, folder: Path, device: str = "cpu", say: Callable[[str], None] = print) -> Run:
    """The upstream run outside a claim: trained, or opened where a claim in `folder` or this function has trained it.

    Args:
        folder: that holds the claims' folders, such as runs/claims.
    """
    arm = upstream_arm(network)
    made = folder / "shared" / "data"
    sources: list[str | Path] = [*upstream_corpus(network, made)]
    settings = {**arm.settings, "text.tokenizer": str(tokenizer(network, made)), "seed": seed, "device": device}
    settings["optimizer.learning_rate"] = network.peak
    preset = settings.pop("preset")
    place = shared_folder(folder, arm, preset, settings, sources)
    with locked(place.with_name(f".{place.name}.lock"), "trains what several claims begin with"):
        if is_done(place):
            return Run(place, read_run(place))
        return pretrain(arm.method, sources, preset=preset, out=place, say=say, **settings)
