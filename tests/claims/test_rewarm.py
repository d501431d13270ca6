"""Re-warming's claim: its arms and presets, the upstream run that claims share, the measure, and what is said beside the verdict."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.claims._continual import CPU, GPU, SMOKE, bits_per_byte, measured_store, named, tokenizer, upstream, upstream_arm
from headstart.claims._run import claim, shared_folder
from headstart.claims.rewarm import CLAIM, PEAKS, rank_correlation, remarks
from headstart.core.run import read_run
from headstart.interop.transformers_io import save_model_folder
from tests.corpus import write_jsonl
from tests.running import run_info


def test_the_scales_are_those_of_the_specification() -> None:
    """Tokens upstream and later, batch, seeds; the batch is small so that there are steps enough to pay the rise back."""
    for preset, network, upstream_tokens, later, steps, seeds in (
        ("cpu", CPU, 1.7e6, 0.6e6, 293, 3), ("gpu", GPU, 4.1e6, 2.5e6, 610, 5), ("smoke", SMOKE, 40e3, 20e3, 20, 1),
    ):  # fmt: skip
        scale, window = CLAIM.scale(preset), network.batch * network.context
        assert network.steps * window == pytest.approx(upstream_tokens, rel=0.03)
        assert scale.settings["budget.steps"] * window == pytest.approx(later, rel=0.03)
        assert (scale.settings["budget.steps"], scale.seeds) == (steps, seeds)
    assert GPU.extra
    assert not CPU.extra


def test_the_arms_differ_in_the_rate_alone() -> None:
    scale = CLAIM.scale("cpu")
    arms = {arm.name: arm for arm in scale.arms}
    rates = {name: arms[name].learning_rate for name in PEAKS}
    assert rates == {"constant": pytest.approx(3e-4), "rewarm-0.5x": pytest.approx(1.5e-3), "rewarm-1x": 3e-3, "rewarm-2x": pytest.approx(6e-3)}
    continued = [arm for arm in scale.arms if arm.start is not None and arm.trained]
    assert {setting.split(".")[0] for arm in continued for setting in arm.settings} == {"rewarm"}
    assert {arm.corpus for arm in continued if arm.name != "same-data"} == {"new"}
    assert all(arm.start == continued[0].start for arm in continued)
    assert {arm.name for arm in scale.arms if arm.unequal} == {"scratch-w5", "scratch-w20", "scratch-total"}
    assert arms["scratch-total"].settings["budget.steps"] == 830 + 293
    assert arms["rewarm-1x-keep"].seeds == 1
    deciding = [(one.a, one.b, one.margin) for one in CLAIM.comparisons_of(scale) if one.decides]
    assert deciding == [("rewarm-1x", other, 0.005) for other in ("constant", "scratch-w5", "scratch-w20")]


def test_what_stands_beside_the_verdict() -> None:
    figures = {name: {"new": 2.0 - 0.1 * peak, "old": 2.7 + 0.1 * peak} for name, peak in PEAKS.items()}
    figures |= {"rewarm-1x-w0": {"new": 1.905, "old": 2.8}, "rewarm-1x-w20": {"new": 1.95, "old": 2.8}}
    order, without, long = remarks(figures)
    assert "-1.00 on new text (the paper: -1), +1.00 on old (+1); 4 peaks" in order
    assert "differ by 0.0050 bits a byte on new text: no more than" in without
    assert "differ by 0.0500 bits a byte on new text: more than" in long
    assert rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)


def test_a_uniform_model_takes_log2_of_the_vocabulary_a_token(tmp_path: Path) -> None:
    """So bits a byte are tokens over bytes times that; each document has its own share."""
    made = tokenizer(SMOKE, tmp_path)
    assert Tokenizer.from_file(str(made)).token_to_id("<|endoftext|>") == 0
    model = GPT2LMHeadModel(GPT2Config(n_positions=16, n_embd=8, n_layer=1, n_head=1, vocab_size=512, bos_token_id=0, eos_token_id=0))
    torch.nn.init.zeros_(model.transformer.wte.weight)  # also the output
    save_model_folder(model, Tokenizer.from_file(str(made)), tmp_path / "model")
    texts = ["The pump was switched off at noon.", "Pressure fell."]
    store = measured_store([write_jsonl(tmp_path / "test.jsonl", [{"text": text} for text in texts])], made, tmp_path / "store")
    score = bits_per_byte(tmp_path / "model", store, 16, torch.device("cpu"))
    lengths, sizes = [len(store.document(i)) + 1 for i in range(2)], [len(text.encode()) for text in texts]
    assert score.items is not None
    assert score.items[:, 0] == pytest.approx([9 * (lengths[0] - 1), 9 * lengths[1]], rel=1e-5)
    assert score.items[:, 1].tolist() == sizes
    assert score.value == pytest.approx(9 * (sum(lengths) - 1) / sum(sizes), rel=1e-5)
    assert score.beside["nats a token"] == pytest.approx(math.log(512), rel=1e-5)


def test_a_shared_run_is_named_by_what_decides_it(tmp_path: Path) -> None:
    """By the content of its files, wherever they lie, and its settings; not by the seed, which stands behind."""
    for name, content in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(content)

    def name(source: str, **settings: object) -> str:
        decided = {"seed": 0, "text.tokenizer": str(tmp_path / "a"), **settings}
        return shared_folder(tmp_path, upstream_arm(CPU), "base", decided, named(old=[tmp_path / source])).name

    assert name("a") == name("b")
    assert name("a") != name("c")
    assert name("a") != name("a", batch=3)
    assert name("a", **{"text.tokenizer": str(tmp_path / "c")}) != name("a", **{"text.tokenizer": str(tmp_path / "b")}) == name("a")
    assert name("a", seed=1) == name("a").replace("seed-0", "seed-1")


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    said: list[str] = []
    result = claim("rewarm", "smoke", out=tmp_path / "claim", device="cpu", say=said.append)
    arms = {arm["arm"]: arm["runs"][0] for arm in result["arms"]}
    assert list(arms) == ["constant", "rewarm-1x", "scratch-w5"]
    runs = {path.name.partition("-rate-")[0]: run_info(path) for path in (tmp_path / "claim" / "runs").glob("*-seed-0")}
    (begun,) = {runs[name]["config"]["init"] for name in ("constant", "rewarm-1x")}
    assert Path(begun).parent == tmp_path / "shared"
    assert runs["scratch-w5"]["config"]["init"] is None
    before = read_run(Path(begun))["totals"]
    assert arms["constant"]["train_flops"] == arms["rewarm-1x"]["train_flops"] == before["flops"] + arms["scratch-w5"]["train_flops"]
    assert runs["constant"]["config"]["optimizer"]["learning_rate"] == pytest.approx(3e-4)
    assert {"new: pays back at step", "old: transient (nats)"} <= set(arms["rewarm-1x"]["beside"])
    assert result["verdict"] == "inconclusive"
    assert "upstream: nats below the unigram entropy" in result["comparisons"][0]["why"]
    curves = (tmp_path / "claim" / "result-curves.svg").read_text()
    assert all(name in curves for name in arms)
    again = upstream(SMOKE, 0, tmp_path, say=lambda line: None)
    assert again.folder == Path(begun), "what a claim has trained is opened, not trained again"
    assert np.isfinite([run["metric"] for run in arms.values()]).all()
