"""The numbered checks of the specification of re-warming: schedule, windows, losses, switches between runs, and what a curve says."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from headstart import methods
from headstart.core.config import read_yaml, replace_nested
from headstart.core.errors import UsageError
from headstart.data.loader import Loader
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.data.text.windows import windows
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.config import OptimizerConfig
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import build_optimizer, load_moments, named_state, set_learning_rate
from headstart.engine.parts import bits_per_byte, mean_losses
from headstart.engine.update import Update
from headstart.interventions.rewarm.config import PAPER_PEAKS, RewarmConfig
from headstart.interventions.rewarm.schedule import decay_end, share, warmup_steps
from headstart.objectives.projected_loss import next_token_loss
from headstart.verbs._corpus import open_corpus
from headstart.verbs.config import preset_config
from headstart.verbs.forgetting import curves, transient
from headstart.verbs.pretrain import Run, build_method, pretrain
from tests.corpus import write_old_and_new
from tests.running import TINY, records, untimed, weight_files

CPU = torch.device("cpu")
PEAK, FLOOR, STEPS = 3e-4, 3e-5, 100
RELATIVE = RewarmConfig(preset="relative", warmup_steps=10)
SETTINGS: dict[str, Any] = TINY | {
    "batch": 8,
    "method.packing": "stream",
    "text.tokenizer_kind": "bpe",
    "text.held_out_share": 0.2,
    "budget.steps": 24,
    "trainer.evaluate_every": 12,
    "trainer.part_rows": 8,
    "trainer.checkpoint_every": 12,
}


def train(data: Path | list[str], out: Path, **settings: Any) -> Run:
    entries = data if isinstance(data, list) else [str(data)]
    return pretrain("causal-lm", list(entries), out=out, say=lambda line: None, **SETTINGS | settings)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """old.jsonl and new.jsonl."""
    return write_old_and_new(tmp_path_factory.mktemp("rewarm"))


@pytest.fixture(scope="module")
def old_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"optimizer.learning_rate": 4e-3, "schedule.name": "cosine", "schedule.minimum_share": 0.1}
    return train(texts / "old.jsonl", tmp_path_factory.mktemp("old") / "run", **settings)


def rate(step: int, config: RewarmConfig = RELATIVE, total: int = STEPS, old: float = FLOOR) -> float:
    return PEAK * share(step, total, config, old / PEAK)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 3.0e-5), (1, 3.0e-5), (5, 1.5e-4), (10, 3.0e-4), (11, 2.999178e-4), (32, 2.621109e-4), (55, 1.65e-4), (78, 6.788913e-5), (100, 3.0e-5)],
)
def test_01_the_cosine_rises_from_near_zero_to_the_peak_and_falls_to_the_floor(step: int, expected: float) -> None:
    assert rate(step) == pytest.approx(expected, rel=1e-6)


def test_02_after_the_end_of_the_decay_the_rate_stays_at_the_floor() -> None:
    """gpt-neox's formula goes up again: 6.158400e-5 at step 120."""
    config = replace(RELATIVE, decay_fraction=100 / 150)
    assert decay_end(config, 150) == 100
    assert rate(32, config, 150) == pytest.approx(2.621109e-4, rel=1e-6)
    assert rate(120, config, 150) == pytest.approx(FLOOR)


@pytest.mark.parametrize(("step", "expected"), [(0, 3.0e-4), (1, 2.999334e-4), (50, 1.65e-4), (100, 3.0e-5)])
def test_03_without_a_warm_up_the_first_rate_is_the_peak(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, warmup_steps=0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 3e-5), (5, 1.65e-4), (10, 3e-4), (11, 2.999178e-4)])
def test_04_a_warm_up_from_the_floor_is_linear_between_the_two_rates(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, warmup_start="floor")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_05_a_peak_that_is_the_floor_is_the_constant_run(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """After the warm-up every rate is the same; without one the runs are the same bits."""
    flat = replace(RELATIVE, min_ratio=1.0)
    assert {rate(step, flat) for step in range(10, 101)} == {PEAK}
    rewarmed = train(
        texts / "new.jsonl", tmp_path / "flat", init=old_run.folder,
        **{"optimizer.learning_rate": 1e-3, "rewarm.preset": "relative", "rewarm.min_ratio": 1.0, "rewarm.warmup_steps": 0},
    )  # fmt: skip
    constant = train(
        texts / "new.jsonl", tmp_path / "constant", init=old_run.folder, **{"optimizer.learning_rate": 1e-3, "rewarm.preset": "constant"}
    )
    assert weight_files(rewarmed.folder) == weight_files(constant.folder)
    assert untimed(records(rewarmed.folder, "metrics")) == untimed(records(constant.folder, "metrics"))


def updated(method: Method, batches: list[Batch], config: RewarmConfig, peak: float) -> dict[str, Tensor]:
    """The weights after these updates at the rates of the schedule."""
    optimizer = build_optimizer(method, OptimizerConfig(learning_rate=peak, beta2=0.95, weight_decay=0.1))
    update = Update(method, optimizer, clip_norm=1.0, precision="fp32", device=CPU, seed=0, total_steps=len(batches))
    for step, batch in enumerate(batches):
        set_learning_rate(optimizer, peak * share(step, len(batches), config))
        update([batch], [torch.arange(len(batch["input_ids"]))], step, "train")
    return {name: value.clone() for name, value in method.state_dict().items()}


def test_06_a_random_start_with_the_weights_of_the_checkpoint_is_the_rewarmed_run(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """Nothing but the weights differs between the two arms: not the data, which each opens for itself, not their order, not the optimiser."""
    method_class = methods.load("causal-lm")
    given = {"data": (f"new={texts}/new.jsonl", f"old:held-out={texts}/old.jsonl"), "text.tokenizer": str(old_run.export)}
    config = replace_nested(preset_config(method_class, "tiny")[1], {**SETTINGS, **given})
    inits = (old_run.export, None)
    corpora = [open_corpus(method_class, config, tmp_path / name / "run", init) for name, init in zip(("continued", "scratch"), inits, strict=True)]
    continued, fresh = (build_method(method_class, config, corpus.store, init) for corpus, init in zip(corpora, inits, strict=True))
    first = next(iter(fresh.state_dict().values())).clone()
    fresh.load_state_dict(continued.state_dict())
    assert not torch.equal(first, next(iter(fresh.state_dict().values())))
    loaders = [Loader(corpus.mixture(config, method), 8) for corpus, method in zip(corpora, (continued, fresh), strict=True)]
    weights = [
        updated(method, [loader.batch(step) for step in range(20)], RELATIVE, 4e-3)
        for method, loader in zip((continued, fresh), loaders, strict=True)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def stepped(gradient: list[float], saved: dict[str, Any] | None = None) -> tuple[list[float], torch.optim.Optimizer]:
    """The weights [0.5, -0.2] after one update with this gradient."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.copy_(torch.tensor([[0.5, -0.2]]))
    optimizer = build_optimizer(layer, OptimizerConfig(learning_rate=0.01, beta1=0.9, beta2=0.95, weight_decay=0.1, clip_norm=None))
    if saved is not None:
        load_moments(optimizer, saved)
    layer.weight.grad = torch.tensor([gradient])
    optimizer.step()
    return layer.weight.detach()[0].tolist(), optimizer


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_07_the_first_update_with_fresh_moments_is_a_sign_step_with_decay(size: float) -> None:
    """Whatever the size of the gradient: the reason why no warm-up with fresh moments spikes. With kept moments it is not."""
    fresh, optimizer = stepped([0.3 * size, -0.7 * size])
    assert fresh == pytest.approx([0.4895, -0.1898], abs=1e-6)
    kept, again = stepped([-0.1 * size, 0.2 * size], named_state(optimizer))
    assert kept != pytest.approx([0.5095, -0.2098], abs=1e-4)
    assert int(next(iter(again.state.values()))["step"]) == 2


@pytest.mark.slow
def test_07_kept_moments_are_those_of_the_old_run(texts: Path, old_run: Run, tmp_path: Path) -> None:
    runs = {
        state: train(
            texts / "new.jsonl", tmp_path / state, init=old_run.folder, **{"rewarm.preset": "relative", "rewarm.optimizer_state": state}
        )
        for state in ("reset", "keep")
    }  # fmt: skip
    counts = {}
    for state, run in runs.items():
        _, saved = load_checkpoint(run.folder / "checkpoints" / "step-00000024")
        counts[state] = {int(entry["step"]) for entry in saved["optimizer"]["state"].values()}
    assert counts == {"reset": {24}, "keep": {48}}
    assert weight_files(runs["reset"].folder) != weight_files(runs["keep"].folder)


def test_08_a_budget_in_tokens_gives_the_steps_of_the_paper() -> None:
    total = round(297e9 / (1104 * 2048))
    paper = RewarmConfig(preset="paper-410m")
    assert total == 131_358
    assert (warmup_steps(paper, total), decay_end(paper, total)) == (1_314, 106_148)


def test_08_the_presets_are_the_table_of_the_specification() -> None:
    """Peak, floor, warm-up and the end of the decay: of the paper's three, and of the default, which warms up over 1 % and 10 steps at least."""
    assert PAPER_PEAKS == {"paper-410m": 3e-4, "paper-410m-stable": 1.5e-4, "paper-410m-plastic": 6e-4}
    for preset in ("paper-410m", "paper-410m-stable", "paper-410m-plastic"):
        paper = RewarmConfig(preset=preset)
        assert (warmup_steps(paper, 10_000), decay_end(paper, 10_000)) == (100, 8_081)
        assert [share(step, 10_000, paper) for step in (8_081, 9_999)] == pytest.approx([0.1, 0.1])
    relative = RewarmConfig(preset="relative")
    assert [warmup_steps(relative, total) for total in (500, 1_000, 5_000)] == [10, 10, 50]
    assert (decay_end(relative, 500), share(500, 500, relative)) == (500, pytest.approx(0.1))
    assert (relative.peak_ratio, relative.optimizer_state) == (1.0, "reset")


def test_09_a_uniform_model_has_the_loss_ln_v() -> None:
    output = nn.Linear(8, 1024, bias=False).requires_grad_(False)
    nn.init.zeros_(output.weight)
    ids = torch.arange(24).view(2, 12)
    loss, count = next_token_loss(torch.randn(2, 12, 8), output, ids, None, ids + 1)
    assert (float(loss), int(count)) == (pytest.approx(6.931472, abs=1e-5), 24)
    assert bits_per_byte(math.log(1024), 1 / 3.0) == pytest.approx(3.333333, abs=1e-6)


class Listed(Method):
    """A row is (number of targets, their mean loss)."""

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        targets, losses = batch["row"].T
        return {"loss": (targets * losses).sum() / targets.sum(), "weight": targets.sum()}


class ListedRows:
    def __init__(self, rows: list[tuple[float, float]]) -> None:
        self.rows = np.array(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"row": self.rows[rows]}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_10_a_validation_loss_is_weighted_by_tokens(batch: int) -> None:
    rows = ListedRows([(2, 3.0), (6, 1.0), (8, 2.5)])
    assert mean_losses(Listed(), rows, [2, 3], batch, "train", "fp32", CPU, 0, 10) == pytest.approx([1.5, 2.0])


def test_11_pythia_410m_has_405_334_016_parameters() -> None:
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=50304, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                max_position_embeddings=2048, tie_word_embeddings=False,
            )
        )  # fmt: skip
    total = sum(p.numel() for p in model.parameters())
    tables = model.get_input_embeddings().weight.numel() + model.get_output_embeddings().weight.numel()
    assert (total, total - tables) == (405_334_016, 302_311_424)


def hashes(texts: Path, out: Path, **settings: Any) -> str:
    """Of the first 100 batches of a run with these settings."""
    method_class = methods.load("causal-lm")
    config = replace_nested(preset_config(method_class, "tiny")[1], {"data": (str(texts / "new.jsonl"),), **SETTINGS, **settings})
    corpus = open_corpus(method_class, config, out, None)
    loader = Loader(corpus.mixture(config, build_method(method_class, config, corpus.store, None)), 8)
    found = hashlib.sha256()
    for step in range(100):
        found.update(loader.batch(step)["input_ids"].numpy().tobytes())
    return found.hexdigest()


def test_12_arms_with_different_peaks_see_the_same_batches(texts: Path, tmp_path: Path) -> None:
    of_peaks = {
        hashes(texts, tmp_path / "run", **{"rewarm.preset": "relative", "rewarm.peak_ratio": ratio, "rewarm.warmup_fraction": 0.2})
        for ratio in (0.5, 2.0)
    }  # fmt: skip
    assert len(of_peaks) == 1
    assert hashes(texts, tmp_path / "run", seed=1) not in of_peaks


class Pulled(Method):
    """A matrix whose gradient is [3, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 2))

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return {"loss": (self.weight * batch["pull"]).sum()}


def test_13_gradients_are_clipped_before_the_update() -> None:
    """The first moment after one update is a tenth of the clipped gradient."""
    method = Pulled()
    optimizer = build_optimizer(method, OptimizerConfig(learning_rate=0.01, beta1=0.9, weight_decay=0.0))
    update = Update(method, optimizer, clip_norm=1.0, precision="fp32", device=CPU, seed=0, total_steps=1)
    scalars = update([{"pull": torch.tensor([[3.0, 4.0]])}], [torch.arange(1)], 0, "train")
    assert float(scalars["gradient_norm"]) == 5.0
    assert optimizer.state[method.weight]["exp_avg"][0].tolist() == pytest.approx([0.06, 0.08])


def test_14_transient_and_final_forgetting() -> None:
    found = transient([0, 1, 2, 4, 8], [2.00, 2.30, 2.25, 2.10, 2.05])
    assert (found.height, found.step, found.forgetting) == (pytest.approx(0.30), 1, pytest.approx(0.05))
    assert found.recovery is None


@pytest.mark.slow
def test_15_rewarming_on_the_same_data_raises_the_loss_first(texts: Path, tmp_path: Path) -> None:
    """So the rise is not the shift of the data alone."""
    steady = {"schedule.name": "cosine", "schedule.minimum_share": 0.05, "optimizer.learning_rate": 1e-2}
    upstream = train(texts / "old.jsonl", tmp_path / "upstream", **steady | {"budget.steps": 250})
    again = train([f"old={texts}/old.jsonl"], tmp_path / "again", init=upstream.folder, **{"rewarm.preset": "relative", "rewarm.warmup_steps": 2})
    found = curves(again.folder)["old"]
    assert max(found.losses) > found.losses[0]


def test_16_another_tokenizer_is_refused(texts: Path, old_run: Run, tmp_path: Path) -> None:
    other = prepare_text([texts / "new.jsonl"], tmp_path / "other", TextConfig(vocab_size=280, tokenizer_kind="bpe"))
    with pytest.raises(UsageError, match="The tokenizer of the data is not the one of the model"):
        train(other.folder, tmp_path / "run", init=old_run.folder)


def test_08_the_example_is_the_run_of_the_paper() -> None:
    example = Path(__file__).parents[2] / "examples" / "rewarm_pythia410m.yaml"
    config = replace_nested(preset_config(methods.load("causal-lm"), "base")[1], read_yaml(example))
    assert config.budget.steps == round(297e9 / (config.batch * config.method.sequence_length))
    assert (config.rewarm.preset, config.method.packing, config.optimizer.beta2) == ("paper-410m", "stream", 0.95)


@pytest.mark.parametrize(("step", "expected"), [(10, 3e-4), (32, 2.34e-4), (55, 1.65e-4), (100, 3e-5), (120, 3e-5)])
def test_17_a_linear_decay_reaches_the_floor_and_stays(step: int, expected: float) -> None:
    config = replace(RELATIVE, shape="linear", decay_fraction=100 / 150)
    assert rate(step, config, 150) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(11, 2.812891e-4), (35, 1.729217e-4), (60, 1.5e-4), (70, 1.5e-4), (90, 6.708204e-5), (100, 3e-5)],
)
def test_17_the_infinite_schedule_cools_down_holds_and_anneals(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, shape="inv_sqrt_infinite")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("step", [10, 11, 55, 100])
def test_17_a_constant_shape_stays_at_the_peak(step: int) -> None:
    assert rate(step, replace(RELATIVE, shape="constant")) == PEAK


@pytest.fixture(scope="module")
def ten_tokens(tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    """A store of nine words and the end of text: 10 tokens, numbered in their order."""
    folder = tmp_path_factory.mktemp("ten")
    tokenizer = Tokenizer(models.WordLevel({**{word: number for number, word in enumerate("abcdefghi")}, "<|endoftext|>": 9, "[UNK]": 10}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "text.jsonl").write_text('{"text": "a b c d e f g h i"}\n')
    return prepare_text([folder / "text.jsonl"], folder / "store", TextConfig(tokenizer=str(folder / "tokenizer.json"), held_out_share=0.0))


def test_18_windows_hold_every_target_once(ten_tokens: TextStore) -> None:
    measured = windows(ten_tokens.as_held_out(), 4, "held_out", [9])
    batch = measured.batch(np.arange(3))
    inputs, targets = (
        [row[mask].tolist() for row, mask in zip(batch[name], batch["attention_mask"], strict=True)] for name in ("input_ids", "next_ids")
    )
    assert inputs == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert targets == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert measured.n_targets == 9
    trained = windows(ten_tokens, 4, "train", [9])
    assert trained.batch(np.arange(len(trained)))["next_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
