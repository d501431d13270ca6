"""webmath's claim on text: at equal bytes, which continued pre-training lowers the loss on held-out mathematics most?

- The model that is continued has read programs, as the paper's has: a byte-level language model of the Python standard library on this machine.
- Three corpora, equal updates on each: all English pages, the mathematical ones without their formulas, and the mathematical ones with their LaTeX.
- Measured in bits a byte on mathematical pages of sites that nobody was trained on, on the bytes within their formulas, and on two pages of a
  handbook.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Scale, Score, Task, Use
from headstart.claims._text import write_documents
from headstart.claims._webmath import OTHER_HELD_OUT, PAPER, SITES, english, read_pages
from headstart.core.files import atomic_write
from headstart.curate.extract.delimiters import delimiters, formulas
from headstart.curate.extract.score import MAX_LENGTH
from headstart.engine.text_method import model_folder
from headstart.interop.transformers_io import load_decoder

BEGIN, END = "<s>", "</s>"
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "idlelib", "turtledemo", "lib2to3", "__pycache__"}
"""Folders of the standard library that are no programs of it."""
ROWS = 64
"""Windows that are scored at a time."""
BEGINNING = 2000
"""Characters of a page in the preset smoke."""


def byte_tokenizer() -> Tokenizer:
    """A token a byte, 0 to 255, then the beginning and the end of a document."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    visible = dict(zip(_byte_order(), range(256), strict=True))
    assert sorted(visible) == alphabet
    tokenizer = Tokenizer(models.BPE(vocab=visible, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BEGIN, END])
    return tokenizer


def _byte_order() -> list[str]:
    """The visible character that stands for each byte (GPT-2's table)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def programs(limit: int) -> Iterator[str]:
    """The standard library's modules, by path, up to so many bytes."""
    root, size = Path(sysconfig.get_paths()["stdlib"]), 0
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT & set(path.relative_to(root).parts[:-1]):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if not text.strip() or "\0" in text:
            continue
        size += len(text.encode())
        if size > limit:
            return
        yield text


def open_data(scale: Scale, folder: Path) -> Data:
    fixture = bool(scale.options["fixture"])
    pages, _, files = read_pages(fixture=fixture)
    documents = english(pages)
    if fixture:  # a few beginnings: every second page stands for a held-out site
        of_kind = [[entry for entry in documents if entry[0].mathematical == kind] for kind in (True, False)]
        chosen = of_kind[0][:5] + of_kind[1][:3]
        trained, held_out = chosen[::2], chosen[1::2]
        others = held_out
    else:
        trained = [(page, document) for page, document in documents if not page.of_held_out_site and page.id not in OTHER_HELD_OUT]
        held_out = [(page, document) for page, document in documents if page.of_held_out_site and page.mathematical]
        others = [(page, document) for page, document in documents if page.id in OTHER_HELD_OUT]
    mathematical = [document for page, document in trained if page.mathematical]
    limit = BEGINNING if fixture else None
    corpora = {
        "base": list(programs(int(scale.options["program_bytes"]))),
        "unfiltered": [document.text()[:limit] for _, document in trained],
        "without_latex": [document.text(formulas=False)[:limit] for document in mathematical],
        "filtered": [document.text()[:limit] for document in mathematical],
    }
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(byte_tokenizer().to_str().encode())
    pages_of = {"mathematics": held_out, "other pages": others}
    asked = {name: tuple(document.text()[:limit] for _, document in found) for name, found in pages_of.items()}
    context = int(scale.options["context"])
    tasks = (
        Task("mathematics", lambda use: bits_per_byte(use, asked["mathematics"], context)),
        Task("within formulas", lambda use: bits_per_byte(use, asked["mathematics"], context, within_formulas=True)),
        Task("other pages", lambda use: bits_per_byte(use, asked["other pages"], context)),
    )
    size = {name: sum(len(text.encode()) for text in texts) for name, texts in {**corpora, **asked}.items()}
    facts = {
        "name": "web pages, and programs of the Python standard library",
        "source": f"kept pages; Python {sysconfig.get_python_version()}",
        "train": len(corpora["filtered"]),
        "test": len(held_out),
        "split": f"by site: {', '.join(SITES)} are never trained on",
        "bytes": size,
        "unigram_bits": entropy_of_bytes(asked["mathematics"]),
    }
    return Data(
        facts,
        {name: [write_documents(folder / f"{name}.jsonl", texts)] for name, texts in corpora.items()},
        tasks,
        files,
        settings={"text.tokenizer": str(folder / "tokenizer.json")},
    )


def entropy_of_bytes(texts: Sequence[str]) -> float:
    """Bits a byte of a model that knows how often each byte occurs, and nothing else."""
    counts = np.bincount(np.frombuffer("".join(texts).encode(), np.uint8), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@cache
def marked(text: str) -> np.ndarray:
    """bool [bytes]: those within formulas, their delimiters among them."""
    found = np.zeros(len(text.encode()), bool)
    before = [0, *np.cumsum([len(character.encode()) for character in text]).tolist()]
    for start, end, *_ in formulas(text, delimiters(), MAX_LENGTH, lambda: None):
        found[before[start] : before[end]] = True
    return found


def bits_per_byte(use: Use, texts: tuple[str, ...], context: int, within_formulas: bool = False) -> Score:
    """The mean over bytes of -log2 p; items are the documents."""
    bits = bits_of(use.model.export, texts, context, use.device)
    counted = [marked(text) if within_formulas else np.ones(len(of_text), bool) for text, of_text in zip(texts, bits, strict=True)]
    items = np.array([(of_text[mask].sum(), mask.sum()) for of_text, mask in zip(bits, counted, strict=True)], np.float64)
    return Score(float(items[:, 0].sum() / max(items[:, 1].sum(), 1)), items)


@lru_cache(maxsize=2)
@torch.no_grad()
def bits_of(export: Path, texts: tuple[str, ...], context: int, device: str) -> list[np.ndarray]:
    """Of each text float [bytes]: -log2 p of each byte given all before it that fit into half to a whole window."""
    network: Any = load_decoder(model_folder(export))[0]
    model = network.to(device)
    begin, half = 256, context // 2
    found = []
    for text in texts:
        ids = np.concatenate([[begin], np.frombuffer(text.encode(), np.uint8).astype(np.int64)])
        starts = range(0, max(len(ids) - half - 1, 1), half)
        windows = np.zeros((len(starts), context + 1), np.int64)
        scored = np.zeros((len(starts), context), bool)
        for row, start in enumerate(starts):
            part = ids[start : start + context + 1]
            windows[row, : len(part)] = part
            scored[row, (half if start else 0) : len(part) - 1] = True
        nats = [_nats(model, rows) for rows in torch.from_numpy(windows).to(device).split(ROWS)]
        found.append(torch.cat(nats).cpu().numpy()[scored] / np.log(2))
    return found


def _nats(model: Any, rows: Tensor) -> Tensor:
    """[rows, context]: -log p of each token but the first."""
    logits = model(rows[:, :-1]).logits.float()
    return F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """The model knows more of mathematics than how often each byte occurs."""
    measured = next(task for task in data.tasks if task.name == "mathematics").measure(Use(model, "test", None, 0, device)).value
    entropy = float(data.facts["unigram_bits"])
    return [Guard("bits a byte on held-out mathematics, below those of single bytes", measured, 0.8 * entropy, measured <= 0.8 * entropy)]


def base(steps: int, rate: float) -> Arm:
    """The model that is continued, of each seed."""
    return Arm("base", "causal-lm", {"budget.steps": steps}, corpus="base", learning_rate=rate)


def arms(steps: int, rate: float) -> tuple[Arm, ...]:
    start = base(steps, rate)
    return (
        Arm("none", "causal-lm", trained=False, start=start, corpus="base"),
        *(Arm(name, "causal-lm", start=start, corpus=name) for name in ("unfiltered", "without_latex", "filtered")),
    )


def settings(layers: int, width: int, context: int, batch: int, steps: int, **more: Any) -> dict[str, Any]:
    """Of all runs; the sizes are those of the specification."""
    return {
        "method.num_layers": layers,
        "method.hidden_size": width,
        "method.num_heads": max(2, width // 32),
        "method.intermediate_size": 8 * width // 3 // 8 * 8,
        "method.sequence_length": context,
        "batch": batch,
        "budget.steps": steps,
        "optimizer.weight_decay": 0.1,
        "optimizer.beta2": 0.95,
        "schedule.name": "cosine",
        "schedule.warmup_share": 0.03,
        "text.held_out_share": 0.05,
        "text.near_duplicate_share": 1.0,
        **more,
    }


CLAIM = Claim(
    slug="webmath_text",
    of=("webmath",),
    statement="At equal bytes, continued pre-training on the filtered pages with their LaTeX lowers the loss on held-out mathematics more than on "
    "unfiltered pages, and than on the same pages without their formulas.",
    paper=PAPER,
    metric="bits a byte of held-out pages",
    presets={
        "smoke": Scale(
            arms(5, 1e-3),
            seeds=1,
            learning_rates=(1e-3,),
            settings=settings(2, 32, 64, 4, 5, **{"trainer.evaluate_rows": 8, "precision": "fp32"}),
            options={"fixture": True, "context": 64, "program_bytes": 200_000},
        ),
        "cpu": Scale(
            arms(1000, 2e-3),
            seeds=3,
            learning_rates=(1e-3,),
            settings=settings(3, 128, 256, 16, 300),
            options={"fixture": False, "context": 256, "program_bytes": 16_000_000},
        ),
        "gpu": Scale(
            arms(3000, 1e-3),
            seeds=3,
            learning_rates=(5e-4,),
            settings=settings(8, 384, 1024, 16, 1000),
            options={"fixture": False, "context": 1024, "program_bytes": 16_000_000},
        ),
    },
    comparisons=(
        Comparison("filtered", "unfiltered", margin=0.01, tasks=("mathematics",)),
        Comparison("filtered", "without_latex", margin=0.01, tasks=("mathematics",), decides=False),
        Comparison("filtered", "without_latex", margin=0.01, tasks=("within formulas",), decides=False),
        Comparison("filtered", "unfiltered", margin=0.01, tasks=("within formulas",), decides=False),
        Comparison("filtered", "none", tasks=("mathematics",), decides=False),
        Comparison("filtered", "none", tasks=("other pages",), decides=False),
    ),
    open_data=open_data,
    guards=guards,
    higher_is_better=False,
    percent=False,
)
