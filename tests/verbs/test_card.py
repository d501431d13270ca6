"""The card of an export: what the hub reads, what a person reads, and nothing that a stranger's text could do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headstart.verbs._card import escaped, model_card
from tests.running import TINY, flags, headstart, run_info


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with labels."""
    folder = tmp_path_factory.mktemp("card")
    labels = folder / "labels.jsonl"
    texts = [(f"the pump is {word} number {i}", word) for i in range(12) for word in ("on", "off")]
    labels.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts))
    settings = {**TINY, "budget.steps": 20, "probe.labels": labels, "optimizer.learning_rate": 0.002}
    done = headstart("pretrain", "electra", "--data", store, "--out", folder / "run", *flags(settings))
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
def test_each_model_folder_has_a_card_that_the_hub_reads(run: Path) -> None:
    info = run_info(run)
    for name in ("discriminator", "generator"):
        card = ModelCard.load(run / "export" / name / "README.md")
        assert card.data.library_name == "transformers"
        assert card.data.license == "other"
        assert "arxiv:2003.10555" in card.data.tags
        (result,) = card.data.eval_results
        assert result.metric_value == pytest.approx(info["verdict"]["trained"], abs=1e-4)
    assert card.data.pipeline_tag == "fill-mask"  # the generator


@pytest.mark.slow
def test_the_card_says_what_was_done_and_what_it_gave(run: Path) -> None:
    info = run_info(run)
    text = (run / "export" / "discriminator" / "README.md").read_text()
    assert f"| steps | {info['totals']['steps']:,} |" in text
    assert f"{info['totals']['flops']:.4g}" in text
    assert escaped(info["verdict"]["sentence"]) in text
    assert "| optimizer.learning&#95;rate | 0.002 |" in text
    assert f"| documents | {info['data'][0]['counts']['documents']:,} |" in text
    assert "eprint = {2003.10555}" in text
    assert str(run.parent) not in text, "no path of this machine"
    snippet = text.split("```python\n")[1].split("```")[0]
    exec(snippet.replace("FOLDER", str(run / "export" / "discriminator")), {})  # it loads


@pytest.mark.slow
def test_what_came_from_outside_is_shown_not_obeyed(run: Path) -> None:
    info = run_info(run)
    hostile = "<script>alert(1)</script> | [x](javascript:1) `a`\n# b"
    info["config"]["text"]["text_field"] = hostile
    info["verdict"]["sentence"] = hostile
    info["data"][0]["counts"][hostile] = 7
    folder = run / "export" / "discriminator"
    text = model_card(folder, run / "export", run, info)
    assert "<script>" not in text
    assert "](javascript" not in text
    assert text.count("&lt;script&gt;") == 3
    assert "\n# b" not in text


def test_a_value_becomes_text_of_one_line() -> None:
    assert escaped("a|b_c\n<i>") == "a&#124;b&#95;c&#92;n&lt;i>".replace(">", "&gt;")
