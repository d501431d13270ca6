"""The numbered checks of the spec of the stability gap (Guo et al. 2025, arXiv 2406.14833)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headstart import methods
from headstart.claims._claim import Arm, Model
from headstart.claims._result import refuse_unequal
from headstart.claims.stability_gap import CLAIM, PAPER_TABLE, paper_mean
from headstart.core.config import read_yaml, replace_nested
from headstart.core.errors import UsageError
from headstart.data.text.epochs import Epochs, Source
from headstart.data.text.ngram import Trigram
from headstart.data.text.pool import read_pool
from headstart.data.text.quality import Guards, Looker, apply_bounds, find_duplicates, take
from headstart.interventions.stability_gap.movement import change
from headstart.tasks.gap import gap
from headstart.tasks.multiple_choice import pick
from headstart.verbs._parts import mix_of
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain
from tests.golden.record import CORPUS
from tests.running import TINY, records, untimed

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_01_gap_statistics() -> None:
    found = gap([0, 1, 2, 3, 4, 5], [0.60, 0.55, 0.52, 0.58, 0.61, 0.63])
    assert found.depth == pytest.approx(0.08)
    assert found.area * 5 == pytest.approx(0.15)
    assert found.area == pytest.approx(0.03)
    assert (found.recovery, found.peak) == (4, 0.63)
    assert found.gain == pytest.approx(0.03)


def test_02_relative_movement() -> None:
    moved = change([(torch.tensor([0.5, -0.2, 0.0, 1.0]), torch.tensor([0.55, -0.1, 0.01, 0.8]))])
    assert moved.relative == pytest.approx(0.266667, abs=1e-6)
    assert moved.norm == pytest.approx(0.201929, abs=1e-6)
    assert moved.zeros == 1


@pytest.fixture(scope="module")
def trigram() -> Trigram:
    return Trigram.train(["a b a b a c"], min_count=1)


def test_03_witten_bell(trigram: Trigram) -> None:
    start, after = trigram.distribution(), trigram.distribution(("b", "a"))
    assert trigram.vocabulary == ["a", "b", "c"]
    assert list(start.values()) == pytest.approx([0.836364, 0.063636, 0.040909, 0.040909, 0.018182], abs=5e-7)
    assert list(after.values()) == pytest.approx([0.069091, 0.500909, 0.382727, 0.032727, 0.014545], abs=5e-7)
    assert sum(start.values()) == pytest.approx(1) == sum(after.values())


def test_04_perplexities(trigram: Trigram) -> None:
    found = trigram.score(["a b a c", "a b", "c c"])
    assert found.perplexity == pytest.approx([1.415008, 4.440788, 8.007821], abs=5e-7)
    assert -math.log(found.perplexity[0]) * 5 == pytest.approx(-1.735675, abs=5e-7)  # 5 events: the end counts
    taken = take(found.perplexity, np.array([4, 2, 2]), np.arange(3), np.zeros(3, np.int8), quota=8)
    assert taken.tolist() == [0, 1, 2]


@pytest.mark.parametrize("quota", [20, 15])
def test_05_selection_quota(quota: int) -> None:
    tokens = np.array([10, 10, 10])
    taken = take(np.array([5.0, 3.0, 9.0]), tokens, np.arange(3), np.zeros(3, np.int8), quota)
    assert (taken + 1).tolist() == [2, 1]
    assert tokens[taken].sum() == 20  # the one that crosses the quota is taken


def selected(scorer: Trigram, texts: list[str], quota: int) -> set[int]:
    """Numbers of the texts that are chosen."""
    found, order = scorer.score(texts), np.arange(len(texts))
    looker = Looker()
    fate = find_duplicates(looker.look(texts), order, found.words, looker.look([]), Guards())
    return set(take(found.perplexity, found.words + 1, order, apply_bounds(found.perplexity, fate, Guards()), quota).tolist())


def test_11_random_letters_are_never_chosen() -> None:
    texts = [document.text for name in ("textmed", "textgen") for document in read_pool([FIXTURES / name])]
    texts = [text[start : start + 2000] for text in texts for start in range(0, len(text), 2000)]
    reference, pool = texts[: len(texts) // 4], texts[len(texts) // 4 :]
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz    "), (1000, 3000))
    noise = ["".join(row) for row in letters]
    scorer = Trigram.train(reference)
    quota = int((scorer.score(pool).words + 1).sum()) // 4
    assert selected(scorer, pool + noise, quota) == selected(scorer, pool, quota)
    closed = Trigram(scorer.vocabulary, scorer.counts, unknown_types=1, min_count=2)  # without the division by U
    assert min(selected(closed, pool + noise, quota)) >= len(pool)  # then they are chosen first: nothing but noise


def test_12_multiple_choice() -> None:
    tokens = [[-3, -2], [-4.5], [-2.2, -2.2, -1.1]]
    choices = (" chest", " arm", " the knee")
    sums = np.array([sum(of_choice) for of_choice in tokens])
    assert sums == pytest.approx([-5.0, -4.5, -5.5])
    assert (sums / [len(choice) for choice in choices]) == pytest.approx([-0.8333, -1.125, -0.6111], abs=5e-5)
    assert pick(sums, choices, "acc") == 1
    assert pick(sums, choices, "acc_norm") == 2
    assert pick(np.array([-2.0, -1.0, -1.0]), choices, "acc") == 1  # of equal ones the first


def test_13_published_averages() -> None:
    means = {row: paper_mean(row) for row in PAPER_TABLE}
    recomputed = [36.2, 37.425, 37.75, 37.5, 39.575, 37.625, 36.55, 40.75]
    assert list(means.values()) == pytest.approx(recomputed)
    assert [row for row, mean in means.items() if abs(mean - PAPER_TABLE[row][-1]) > 0.06] == ["strategies with replay"]  # an error in the paper
    assert "strategies with replay 39.6" in CLAIM.paper.value


def test_15_open_class() -> None:
    one, two = Trigram.train(["a b a b a c"]), Trigram.train(["a b a b a c d"])
    assert one.vocabulary == two.vocabulary == ["a", "b"]
    assert (one.unknown_types, two.unknown_types) == (1, 2)
    for scorer in (one, two):
        as_word = scorer.distribution()["<unk>"] * scorer.distribution(("<no word>",))["</s>"]  # an unknown word, then the end
        assert float(scorer.score(["zzz"]).perplexity[0]) ** -2 == pytest.approx(as_word / scorer.unknown_types)


def source(name: str, n_documents: int, share: str, length: int | None = None) -> Source:
    """Documents of 200 to 800 tokens, or of one length; the key is that of the name."""
    random = np.random.default_rng(len(name))
    lengths = random.integers(200, 800, n_documents) if length is None else np.full(n_documents, length)
    starts = np.cumsum(lengths) - lengths
    return Source(name, Fraction(share), random.integers(0, 1000, int(lengths.sum())), starts, lengths, hash_of(name), 1000)


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode(), "little") % 2**60


def epochs(*sources: Source, tokens: int, draw: str = "dynamic", seed: int = 0) -> Epochs:
    return Epochs(sources, tokens, draw, seed, length=64, end=1000)  # type: ignore[arg-type]


OLD = {"github": 4.5, "wikipedia": 4.5, "books": 4.5, "arxiv": 2.5, "stackexchange": 2.0}


def test_07_shares_of_an_epoch() -> None:
    domain = source("domain", 3000, "0.82")
    others = [source(name, 300, f"{share / 100:.4f}") for name, share in OLD.items()]
    epoch = epochs(domain, *others, tokens=1_000_000).epoch(0)
    longest = 801
    assert 820_000 <= epoch.tokens_of(0) < 820_000 + longest
    rest = np.array([epoch.tokens_of(index) for index in range(1, 6)])
    assert rest / rest.sum() == pytest.approx([0.25, 0.25, 0.25, 0.139, 0.111], abs=0.005)
    assert all(0 <= tokens - share * 10_000 < longest for tokens, share in zip(rest, OLD.values(), strict=True))
    blocks = [(block == 0).mean() for block in np.array_split(epoch.source, 20)]
    assert min(blocks) > 0.65  # shuffled together, not blocked


def test_08_fixed_and_dynamic_draws() -> None:
    pool, old = source("pool", 1000, "0.82", length=99), source("old", 1000, "0.18", length=99)
    fixed = epochs(pool, old, tokens=100_000, draw="fixed")
    first, second = fixed.epoch(0), fixed.epoch(1)
    names = [sorted(zip(epoch.source.tolist(), epoch.document.tolist(), strict=True)) for epoch in (first, second)]
    assert names[0] == names[1]
    assert first.document.tolist() != second.document.tolist()
    dynamic = epochs(pool, old, tokens=100_000)
    draws = [dynamic.draws(number)[0] for number in range(6)]
    assert [len(draw) for draw in draws] == [820] * 6
    overlaps = [len(np.intersect1d(draws[i], draws[j])) / 820 for i in range(6) for j in range(i)]
    assert np.mean(overlaps) == pytest.approx(0.82, abs=0.03)
    olds = [set(of.draws(1)[1].tolist()) == set(of.draws(0)[1].tolist()) for of in (fixed, dynamic)]
    assert olds == [True, False]  # the old text is redrawn with it, or not


def windows_of(of: Epochs, count: int) -> np.ndarray:
    return of.batch(of.locate(np.arange(count))[1])["input_ids"]


def test_09_limits() -> None:
    pool, old = source("pool", 50, "1"), source("old", 50, "0")
    full = epochs(pool, tokens=pool.n_tokens)
    whole = (pool.n_tokens - 1) // 64
    assert sorted(full.epoch(0).document.tolist()) == list(range(50))  # one epoch is the whole pool
    reference = windows_of(full, whole)
    assert np.array_equal(windows_of(epochs(pool, old, tokens=pool.n_tokens), whole), reference)  # f = 1
    assert np.array_equal(windows_of(epochs(pool, tokens=pool.n_tokens, draw="fixed"), whole), reference)  # E = 1 with S = P
    replay = epochs(replace(pool, share=Fraction(0)), replace(old, share=Fraction(1)), tokens=10_000)  # f = 0
    assert np.array_equal(windows_of(replay, 300), windows_of(epochs(replace(old, share=Fraction(1)), tokens=10_000), 300))


# --- runs ------------------------------------------------------------------------------------------------------------------------------------------

RUN: dict[str, Any] = TINY | {
    "text.tokenizer_kind": "bpe", "text.lowercase": False, "method.packing": "stream", "method.architecture": "gpt2", "method.sequence_length": 16,
    "batch": 4, "trainer.evaluate_every": 1000, "trainer.checkpoint_every": 1000,
}  # fmt: skip


def run(folder: Path, **settings: Any) -> Any:
    return pretrain("causal-lm", [CORPUS], out=folder, say=lambda line: None, **{**RUN, "budget.steps": 10, **settings})


def test_07_the_example_is_the_three_strategies_together() -> None:
    example = Path(__file__).parents[2] / "examples" / "stability_gap_1b.yaml"
    config = replace_nested(preset_config(methods.load("causal-lm"), "base")[1], read_yaml(example))
    assert config.budget.tokens == 4 * config.epochs.tokens
    assert config.epochs.draw == "dynamic"
    shares = mix_of(config.mix)
    assert shares is not None
    assert shares["new"] == 0.82
    assert [shares[name] for name in ("github", "wikipedia", "books", "arxiv", "stackexchange")] == [share / 100 for share in OLD.values()]
    assert config.batch * config.method.sequence_length == pytest.approx(0.34e6, rel=0.01)
    assert (config.schedule.name, config.schedule.warmup_share, config.optimizer.weight_decay) == ("cosine", 0.1, 0.01)
    assert not config.rewarm.on


def test_06_compute(tmp_path: Path) -> None:
    steps = 20
    tokens = steps * 4 * 16  # T
    full = run(tmp_path / "full", **{"budget.steps": steps, "epochs.tokens": tokens})
    subset = run(tmp_path / "subset", **{"budget.steps": 4 * steps // 10, "epochs.tokens": tokens // 10, "epochs.draw": "fixed"})
    assert subset.info["totals"]["tokens"] == 0.4 * full.info["totals"]["tokens"]
    assert subset.info["totals"]["flops"] == 0.4 * full.info["totals"]["flops"]
    arms = [Arm(name, "causal-lm") for name in ("full", "subset")]
    models = [
        Model(arm, 0, found.folder, 1e-3, found.info["totals"]["flops"], 0, 0.0, max(found.info["decisions"]["flops_per_step"].values()))
        for arm, found in zip(arms, (full, subset), strict=True)
    ]
    with pytest.raises(UsageError, match="FLOPs"):
        refuse_unequal(models)
    refuse_unequal([models[0], replace(models[1], arm=replace(arms[1], unequal="asked for: 0.4 of the tokens"))])


@pytest.mark.parametrize(("end", "frozen"), [("top", (2,)), ("bottom", (0, 1))])
def test_10_frozen_layers_stay_bitwise(tmp_path: Path, end: str, frozen: tuple[int, ...]) -> None:
    settings = {"method.num_layers": 3, "optimizer.weight_decay": 0.1, f"layers.freeze_{end}": len(frozen)}
    start = run(tmp_path / "start", **settings | {"budget.steps": 1, f"layers.freeze_{end}": 0})
    found = run(tmp_path / "run", init=start.folder, **settings)
    before, after = (load_file(folder / "model.safetensors") for folder in (start.export, found.export))
    for name, weight in before.items():
        layer = re.search(r"\.h\.(\d)\.", name)
        stays = layer is not None and int(layer[1]) in frozen
        assert torch.equal(weight, after[name]) == stays, name


def test_14_evaluation_does_not_touch_training(tmp_path: Path) -> None:
    settings = {"method.dropout": 0.3, "layers.movement": 1}
    often = run(tmp_path / "often", **settings, **{"trainer.evaluate_every": 1, "trainer.evaluate_at": (2, 3)})
    never = run(tmp_path / "never", **settings)
    assert untimed(records(often.folder, "metrics")) == untimed(records(never.folder, "metrics"))
    one, other = (load_file(found.export / "model.safetensors") for found in (often, never))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [record["step"] for record in records(often.folder, "probes") if record["probe"] == "weight_movement/bottom"]
    assert steps == list(range(1, 11))
