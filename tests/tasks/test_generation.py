"""Conditional generation: what is learned, what is written, what is scored, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.interop.masks import MASKS
from headstart.tasks.generation import Decoder, Pairs, fit, make_pairs, masks_of, pair_nll, train_pairs, write
from headstart.tasks.generation_config import GenerationConfig
from headstart.tasks.generation_data import GenerationData, Item, read_generation, read_slots, refuse_shared
from headstart.tasks.generation_metrics import rouge_l, slot_error
from headstart.verbs.pretrain import pretrain
from tests.corpus import write_jsonl
from tests.running import TINY

CPU = torch.device("cpu")
SLOTS = GenerationConfig(source_field="mr", target_field="refs", source_form="slots")
MR = "name[The Vaults], eatType[pub], priceRange[more than £30], near[Café Adriatic]"
SMALL: dict[str, Any] = {**TINY, "method.sequence_length": 64, "budget.steps": 12}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse decoder, a little trained."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    given = {"method.architecture": request.param, "sparsity.level": 0.5}
    return pretrain("causal-lm", store, out=out, say=lambda line: None, **SMALL, **given).export


@pytest.fixture(scope="module")
def pairs() -> GenerationData:
    texts = {"boat": "the boat sails near the river.", "cook": "the cook waits.", "fox": "the old fox hides after the rain once more."}
    return GenerationData([Item(f"name: {name}" * (1 + i), (text, f"a {name}.")) for i, (name, text) in enumerate(texts.items())])


def test_meaning_representations_are_written_short() -> None:
    assert read_slots(MR) == [("name", "The Vaults"), ("eatType", "pub"), ("priceRange", "more than £30"), ("near", "Café Adriatic")]
    for broken in ("name The Vaults", "name[x] tail", ""):
        with pytest.raises(BadInput, match="no meaning representation"):
            read_slots(broken)


def test_records_of_one_source_are_one_item(tmp_path: Path) -> None:
    """E2E as jsonl with lists, and as csv with a row for each reference, are the same."""
    write_jsonl(tmp_path / "a.jsonl", [{"mr": MR, "refs": ["One.", "Two."]}, {"mr": "name[B]", "refs": ["Three."]}])  # type: ignore[dict-item]
    (tmp_path / "a.csv").write_text(f'mr,ref\n"{MR}",One.\n"name[B]",Three.\n"{MR}",Two.\n')
    as_lists = read_generation(tmp_path / "a.jsonl", SLOTS)
    as_rows = read_generation(tmp_path / "a.csv", dataclasses.replace(SLOTS, target_field="ref"))
    for data in (as_lists, as_rows):
        first = data.items[0]
        assert (first.source, first.targets) == ("name: The Vaults; type: pub; price: more than £30; near: Café Adriatic", ("One.", "Two."))
        assert first.values == ("the vaults", "pub", "café adriatic"), "the price is phrased freely"
        assert (len(data), data.n_pairs) == (2, 3)


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([{"source": "a", "target": "b"}, {"source": "c", "target": "  "}], "record 2: has no text, or an empty one, in 'target'"),
        ([{"source": "a", "target": []}], "record 1: has no text, or an empty one, in 'target'"),
        ([{"source": "a"}], "record 1: has no text, or an empty one, in 'target'"),
        ([{"target": "a"}], "record 1: has no text in 'source'"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(records: list[dict[str, Any]], what: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", records)
    with pytest.raises(BadInput) as caught:
        read_generation(path, GenerationConfig())
    assert what.split(": ", 1)[1] in caught.value.what
    assert what.split(":")[0].removeprefix("record ") in caught.value.what


def test_a_source_in_two_splits_is_refused(pairs: GenerationData) -> None:
    other = GenerationData([Item("new", ("x",), record=1), dataclasses.replace(pairs.items[0], record=2)], "test.jsonl")
    with pytest.raises(BadInput, match="a source that the training file has too"):
        refuse_shared(pairs, other)


def test_a_context_is_cut_from_the_left() -> None:
    assert fit([1, 2], [5, 6, 7, 8], [0], 6) == [1, 2, 0, 6, 7, 8]
    assert fit([1, 2], [5, 6], [0], None) == [1, 2, 0, 5, 6]
    assert fit([1, 2], [], [0], 1) is None, "a source never is"


def test_a_pair_without_room_is_named(folder: Path) -> None:
    decoder = Decoder.load(folder)
    data = GenerationData([Item("short", ("fine",), record=1), Item("boat", ("the " * 80,), record=2)], "train.jsonl")
    with pytest.raises(BadInput, match=r"takes .* tokens with its target, the network has 64 positions"):
        make_pairs(decoder, data, GenerationConfig())


def test_padding_changes_no_loss(folder: Path, pairs: GenerationData) -> None:
    decoder = Decoder.load(folder)
    rows = make_pairs(decoder, pairs, GenerationConfig())
    together = pair_nll(decoder.model, Pairs(rows, decoder, CPU), CPU, "fp32")
    alone = [pair_nll(decoder.model, Pairs(make_pairs(decoder, GenerationData([dataclasses.replace(item, targets=(target,))]), GenerationConfig()),
                                           decoder, CPU), CPU, "fp32")[0] for item in pairs.items for target in item.targets]  # fmt: skip
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_outputs_of_a_batch_are_those_of_each_source_alone(folder: Path, pairs: GenerationData, beams: int) -> None:
    """Sources of other lengths stand beside it, padded on the left."""
    decoder = Decoder.load(folder)
    config = GenerationConfig(beams=beams, max_new_tokens=8)
    together = write(decoder, pairs, config, CPU)
    assert together == [write(decoder, GenerationData([item]), config, CPU)[0] for item in pairs.items]
    assert any(together)


def test_greedy_is_the_most_probable_token_each_time(folder: Path, pairs: GenerationData) -> None:
    decoder = Decoder.load(folder)
    found = write(decoder, GenerationData(pairs.items[:1]), GenerationConfig(max_new_tokens=4), CPU)[0]
    ids = decoder.ids([pairs.items[0].source])[0] + decoder.separator
    made: list[int] = []
    while len(made) < 4:
        with torch.no_grad():
            best = int(decoder.model(torch.tensor([ids + made])).logits[0, -1].argmax())
        if best == decoder.end:
            break
        made.append(best)
    assert found == decoder.tokenizer.decode(made, skip_special_tokens=True).strip()


@pytest.mark.parametrize("sparse", [False, True])
def test_zeros_are_revived_unless_the_masks_are_kept(folder: Path, pairs: GenerationData, sparse: bool) -> None:
    decoder = Decoder.load(folder)
    masks = masks_of(folder, decoder.model)
    named = dict(decoder.model.named_parameters())
    before = {name: named[name].detach().clone() for name in masks}
    config = GenerationConfig(epochs=1, batch=8, warmup_share=0.0)  # one step
    train_pairs(decoder, make_pairs(decoder, pairs, config), config, 1e-2, 0, CPU, masks if sparse else None)
    for name, mask in masks.items():
        assert (named[name][mask] != before[name][mask]).any()
        assert bool((named[name][~mask] != 0).any()) is not sparse, name


def test_masks_that_are_not_those_of_the_weights_are_counted(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    name, mask = next(iter(masks_of(folder, model).items()))
    with torch.no_grad():
        dict(model.named_parameters())[name][~mask] = torch.nn.functional.one_hot(torch.tensor(0), int((~mask).sum())).float() * 3
    with pytest.raises(BadInput, match="1 weights that its masks hold at zero are not zero"):
        masks_of(folder, model)


def test_scores() -> None:
    assert slot_error(["The Vaults is a pub.", "Nothing."], [("the vaults", "pub"), ("cheap", "pub")]) == 0.5
    pytest.importorskip("rouge_score")
    assert rouge_l(["the cat sat"], [["the cat sat", "a dog"]]) == 1.0
    assert rouge_l(["the cat sat"], [["the dog sat"]]) == pytest.approx(2 / 3)


@pytest.mark.slow
def test_the_command_trains_both_starts_and_writes_what_it_said(folder: Path, pairs: GenerationData, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    items = [{"source": item.source, "target": list(item.targets)} for item in pairs.items]
    train, test = write_jsonl(tmp_path / "train.jsonl", items[:2]), write_jsonl(tmp_path / "test.jsonl", items[2:])  # type: ignore[arg-type]
    lines: list[str] = []
    result = headstart.finetune(
        "generation", folder, train, test, say=lines.append, seeds=1, epochs=2, max_new_tokens=6, out=tmp_path / "out", sparse=True
    )
    assert [arm.arm for arm in result.arms] == ["pretrained", "random"]
    found = result.arm("pretrained").runs[0].metrics
    assert set(found) == {"log_prob", "bits_per_byte", "bleu", "rouge_l"}
    outputs = (tmp_path / "out" / "outputs.txt").read_text().splitlines()
    references = (tmp_path / "out" / "references.txt").read_text()
    assert len(outputs) == 1
    assert references == "\n".join(pairs.items[2].targets) + "\n"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    for name, mask in masks_of(folder, model).items():
        assert not dict(model.named_parameters())[name][~mask].any()
    assert masks_of(tmp_path / "out" / "model", model).keys() == masks_of(folder, model).keys(), "what was kept can be kept on"
    assert json.loads((tmp_path / "out" / "result.json").read_text())["data"]["scorer"].startswith("sacrebleu")
    assert any("in the training file" in line for line in lines)


def test_what_cannot_be_is_refused(folder: Path, store: Path, tmp_path: Path) -> None:
    model = Decoder.load(folder).model
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="nothing of it is sparse"):
        masks_of(tmp_path / "plain", model)
    (tmp_path / "plain" / MASKS).write_bytes(b"broken")
    with pytest.raises(BadInput, match="cannot be read"):
        masks_of(tmp_path / "plain", model)
    encoder = pretrain("mlm", store, out=tmp_path / "mlm", say=lambda line: None, **TINY, **{"budget.steps": 1}).export
    with pytest.raises(BadInput, match="Give a decoder"):
        Decoder.load(encoder)
