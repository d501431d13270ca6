"""webmath's claim on images: does continued pre-training on interleaved documents before instruction tuning help?

- Sums of handwritten digits. The language model has read "a plus b equals c ." in words; all pairs (a, b) are trained on but the 20 with
  (7a + 3b) mod 5 = 0.
- Stage 1 names single digits; stage 2 is "<image> plus <image> equals seven ." among other sentences, the same with words in place of the images,
  or more of stage 1; stage 3 is 200 questions, scored on their answers. Equal updates in all arms.
- The tower is a small convolutional network, taught to name other digits, and frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextConfig, ConvNextModel

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Scale, Score, Task, Use
from headstart.claims._webmath import PAPER
from headstart.core.errors import MissingDependency
from headstart.core.files import atomic_write, write_json
from headstart.interop.transformers_io import quiet
from headstart.interop.vision_tower import PREPROCESSOR, preprocessor
from headstart.methods.interleaved_lm.network import MARKER, read_interleaved

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen",
)  # fmt: skip
WORDS = ("plus", "equals", "is", "after", "question", "what", "answer", "?", ".")
SPECIALS = ("[PAD]", "[UNK]", "<s>", "</s>")
FOR_TOWER, FOR_DOCUMENTS = 600, 800
"""Images of the 1,797, shuffled; the rest is the test."""
ASKED = 400
"""Questions of a test measurement."""


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8 x 8, grey.

    Attributes:
        pixels: uint8 [n, 8, 8].
        labels: int64 [n].
    """

    pixels: np.ndarray
    labels: np.ndarray


@cache
def digits() -> Digits:
    """Those that come with scikit-learn, shuffled."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency("scikit-learn", "bench", "The digits of this claim") from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return Digits((found.images[order] * 15).round().astype(np.uint8), found.target[order].astype(np.int64))


def unseen(a: int, b: int) -> bool:
    """Whether a pair is never trained on: 20 of the 100."""
    return (7 * a + 3 * b) % 5 == 0


def word_tokenizer() -> Tokenizer:
    """A token a word."""
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *NUMBERS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


# --- what is written for the runs -----------------------------------------------------------------------------------------------------------------


def write_tower(folder: Path, epochs: int) -> None:
    """A convolutional tower, 16 places of 32 numbers, that was taught to name the first images: once, the same for all arms and seeds."""
    if (folder / "config.json").is_file():
        return
    known = digits()
    pixels = torch.from_numpy(known.pixels[:FOR_TOWER]).float()[:, None] / 255
    labels = torch.from_numpy(known.labels[:FOR_TOWER])
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        tower = ConvNextModel(ConvNextConfig(num_channels=1, patch_size=2, num_stages=1, hidden_sizes=[32], depths=[2], image_size=8))
        head = nn.Linear(32, 10)
        optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.05)
        for _ in range(epochs):
            for rows in torch.randperm(len(pixels)).split(50):
                features = tower(pixel_values=(pixels[rows] - 0.5) / 0.5).last_hidden_state
                loss = F.cross_entropy(head(features.mean((2, 3))), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        tower.save_pretrained(folder)
    write_json(folder / PREPROCESSOR, preprocessor(8, [0.5], [0.5]))


class Writer:
    """Documents of sums, with images drawn from those for documents."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = np.random.default_rng(seed)
        known = digits()
        self.of_digit = [FOR_TOWER + np.flatnonzero(known.labels[FOR_TOWER : FOR_TOWER + FOR_DOCUMENTS] == digit) for digit in range(10)]

    def image(self, digit: int) -> str:
        """The name of an image of this digit."""
        return f"{self.random.choice(self.of_digit[digit])}.png"

    def pair(self) -> tuple[int, int]:
        """Two digits whose sum is trained on."""
        while True:
            a, b = (int(number) for number in self.random.integers(0, 10, 2))
            if not unseen(a, b):
                return a, b

    def sentence(self) -> str:
        """One that says nothing of images."""
        if self.random.random() < 0.5:
            number = int(self.random.integers(0, 18))
            return f"{NUMBERS[number + 1]} after {NUMBERS[number]} ."
        a, b = self.pair()
        return f"{NUMBERS[a]} plus {NUMBERS[b]} equals {NUMBERS[a + b]} ."

    def named(self) -> dict[str, Any]:
        """Stage 1: an image is a number."""
        digit = int(self.random.integers(0, 10))
        return {"image": self.image(digit), "caption": f" is {NUMBERS[digit]} ."}

    def document(self, images: bool) -> dict[str, Any]:
        """Stage 2: a sum of two images, or of their words, between other sentences."""
        a, b = self.pair()
        before, after = self.sentence(), self.sentence()
        if not images:
            return {"text": f"{before} {NUMBERS[a]} plus {NUMBERS[b]} equals {NUMBERS[a + b]} . {after}"}
        texts = [before, None, "plus", None, f"equals {NUMBERS[a + b]} . {after}"]
        return {"text_list": texts, "image_list": [None, self.image(a), None, self.image(b), None]}

    def question(self) -> dict[str, Any]:
        """Stage 3."""
        a, b = self.pair()
        return {"images": [self.image(a), self.image(b)], "question": asking(), "answer": NUMBERS[a + b]}

    def write(self, name: str, count: int, make: Callable[[], dict[str, Any]]) -> Path:
        path = self.folder / f"{name}.jsonl"
        with atomic_write(path) as file:
            file.write("".join(json.dumps(make()) + "\n" for _ in range(count)).encode())
        return path


def asking(a: str = MARKER, b: str = MARKER) -> str:
    """The question of stage 3, without its answer."""
    return f"question what is {a} plus {b} ? answer"


def open_data(scale: Scale, folder: Path) -> Data:
    known = digits()
    write_tower(folder / "tower", int(scale.options["tower_epochs"]))
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(word_tokenizer().to_str().encode())
    for number in range(FOR_TOWER, FOR_TOWER + FOR_DOCUMENTS):
        if not (path := folder / f"{number}.png").is_file():
            Image.fromarray(known.pixels[number]).save(path)
    count, writer = int(scale.options["documents"]), Writer(folder, seed=0)
    corpora = {
        "words": [writer.write("words", count, lambda: {"text": " ".join(writer.sentence() for _ in range(3))})],
        "named": [writer.write("named", count, writer.named)],
        "text": [writer.write("text", count, lambda: writer.document(images=False))],
        "interleaved": [writer.write("interleaved", count, lambda: writer.document(images=True))],
        "asked": [writer.write("asked", int(scale.options["questions"]), writer.question)],
    }
    asked = int(scale.options["asked"])
    tasks = (Task("trained pairs", lambda use: exact_answers(use, asked, False)), Task("unseen pairs", lambda use: exact_answers(use, asked, True)))
    facts = {
        "name": "handwritten digits",
        "source": "scikit-learn",
        "train": FOR_DOCUMENTS,
        "test": len(known.labels) - FOR_TOWER - FOR_DOCUMENTS,
        "split": "by image; 20 pairs of digits are in no document",
    }
    constant = {"trained pairs": most_frequent(False), "unseen pairs": most_frequent(True)}
    given = {"interleaved.tokenizer": str(folder / "tokenizer.json"), "method.vision_tower": str(folder / "tower")}
    return Data(facts, corpora, tasks, settings=given, anchors={"always the most frequent sum": constant})


def most_frequent(pairs_unseen: bool) -> float:
    """The accuracy of one answer to everything."""
    sums = np.bincount([a + b for a in range(10) for b in range(10) if unseen(a, b) == pairs_unseen])
    return float(sums.max() / sums.sum())


# --- measuring ------------------------------------------------------------------------------------------------------------------------------------


@cache
def questions(count: int, pairs_unseen: bool) -> list[tuple[int, int, int]]:
    """(image, image, sum) of so many questions on test images; the same for every arm."""
    known, random = digits(), np.random.default_rng(1 + pairs_unseen)
    first = FOR_TOWER + FOR_DOCUMENTS
    of_digit = [first + np.flatnonzero(known.labels[first:] == digit) for digit in range(10)]
    pairs = [(a, b) for a in range(10) for b in range(10) if unseen(a, b) == pairs_unseen]
    chosen = [pairs[number] for number in random.integers(0, len(pairs), count)]
    return [(int(random.choice(of_digit[a])), int(random.choice(of_digit[b])), a + b) for a, b in chosen]


@torch.no_grad()
def exact_answers(use: Use, count: int, pairs_unseen: bool) -> Score:
    """The share of questions whose likeliest answer is the right word and then the end."""
    reader, known = read_interleaved(use.model.export), digits()
    network = reader.network.to(use.device)
    asked = questions(count, pairs_unseen)
    rows = [reader.batch(asking(), [known.pixels[a], known.pixels[b]]) for a, b, _ in asked]  # of one length
    batch = {name: torch.cat([row[name] for row in rows]).to(use.device) for name in rows[0]}

    def likeliest() -> Tensor:
        return network.model.get_output_embeddings()(network.hidden_states(batch)[:, -1]).argmax(-1)

    word = likeliest()
    batch["input_ids"] = torch.cat([batch["input_ids"], word[:, None]], dim=1)
    batch["image_slots"] = F.pad(batch["image_slots"], (0, 1))
    truth = torch.tensor([reader.tokenizer.token_to_id(NUMBERS[total]) for *_, total in asked], device=word.device)
    right = ((word == truth) & (likeliest() == reader.ids["eos"])).cpu().numpy()
    return Score(float(right.mean()), np.column_stack([right, np.ones(len(right))]).astype(np.float64))


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """The language model has read sums: it completes those that it was trained on."""
    reader = read_interleaved(model.export)
    pairs = [(a, b) for a in range(10) for b in range(10) if not unseen(a, b)][::4]
    right = [reader.answer(f"{NUMBERS[a]} plus {NUMBERS[b]} equals", max_new_tokens=1).strip() == NUMBERS[a + b] for a, b in pairs]
    return [Guard("sums of words that the model still completes", float(np.mean(right)), 0.3, float(np.mean(right)) >= 0.3)]


# --- arms -----------------------------------------------------------------------------------------------------------------------------------------

UNEQUAL = "equal updates in every stage: a stage that trains less, or reads words in place of images, costs less"


@dataclass(frozen=True)
class Steps:
    """Updates of the language model, of stage 1, 2 and 3, and their rates."""

    base: int
    align: int
    continued: int
    instruct: int
    rates: tuple[float, float, float, float] = (3e-3, 2e-3, 1e-3, 5e-4)


def arms(steps: Steps) -> tuple[Arm, ...]:
    """Three ways from one aligned language model to the same instruction tuning."""

    def run(name: str, corpus: str, stage: str, count: int, rate: float, start: Arm | None, unequal: str = "") -> Arm:
        given = {"method.stage": stage, "budget.steps": count}
        return Arm(name, "interleaved-lm", given, start=start, corpus=corpus, learning_rate=rate, unequal=unequal)

    base = run("base", "words", "continued", steps.base, steps.rates[0], None)
    aligned = run("aligned", "named", "alignment", steps.align, steps.rates[1], base)
    second = {
        "more_alignment": run("more_alignment", "named", "alignment", steps.continued, steps.rates[1], aligned),
        "text": run("text_continued", "text", "continued", steps.continued, steps.rates[2], aligned),
        "interleaved": run("interleaved_continued", "interleaved", "continued", steps.continued, steps.rates[2], aligned),
    }
    names = {"more_alignment": "alignment_only"}
    return tuple(
        run(names.get(name, name), "asked", "instruction", steps.instruct, steps.rates[3], start, UNEQUAL) for name, start in second.items()
    )


def settings(layers: int, width: int, batch: int, resampler_layers: int, **more: Any) -> dict[str, Any]:
    """Of all runs; the sizes are those of the specification."""
    return {
        "method.num_layers": layers,
        "method.hidden_size": width,
        "method.num_heads": max(2, width // 32),
        "method.intermediate_size": 8 * width // 3 // 8 * 8,
        "method.sequence_length": 40,
        "method.pack": False,
        "method.latents": 4,
        "method.resampler_layers": resampler_layers,
        "method.resampler_heads": 4,
        "method.resampler_head_size": 16,
        "interleaved.image_size": 8,
        "interleaved.image_mode": "grey",
        "interleaved.near_duplicate_share": 1.0,
        "batch": batch,
        "trainer.micro_batch": batch,
        "schedule.name": "cosine",
        "schedule.warmup_share": 0.05,
        **more,
    }


CLAIM = Claim(
    slug="webmath_images",
    of=("webmath", "interleaved-lm"),
    statement="Continued pre-training on interleaved documents before instruction tuning gives more right answers about images than more alignment, "
    "and than continued pre-training on the same documents with words in place of the images.",
    paper=PAPER,
    metric="share of questions about two test images that are answered exactly",
    presets={
        "smoke": Scale(
            arms(Steps(5, 3, 3, 3)),
            seeds=1,
            learning_rates=(1e-3,),
            settings=settings(2, 32, 8, 1, **{"trainer.evaluate_rows": 8, "precision": "fp32"}),
            options={"documents": 60, "questions": 30, "asked": 20, "tower_epochs": 1},
        ),
        "cpu": Scale(
            arms(Steps(600, 300, 300, 200)),
            seeds=3,
            learning_rates=(1e-3,),
            settings=settings(3, 96, 32, 2),
            options={"documents": 10_000, "questions": 200, "asked": 400, "tower_epochs": 40},
        ),
        "gpu": Scale(
            arms(Steps(600, 600, 600, 300, (1e-3, 1e-3, 5e-4, 2e-4))),
            seeds=3,
            learning_rates=(1e-3,),
            settings=settings(6, 256, 32, 2),
            options={"documents": 20_000, "questions": 200, "asked": 1000, "tower_epochs": 40},
        ),
    },
    comparisons=(
        Comparison("interleaved", "alignment_only", margin=0.02, tasks=("trained pairs",)),
        Comparison("interleaved", "text", margin=0.02, tasks=("trained pairs",)),
        Comparison("interleaved", "alignment_only", margin=0.02, tasks=("unseen pairs",), decides=False),
        Comparison("interleaved", "text", margin=0.02, tasks=("unseen pairs",), decides=False),
    ),
    open_data=open_data,
    guards=guards,
)
"""The paper's side against the better of both other arms is its side against each."""
