"""Zero-shot multiple choice: what a choice is worth, what is cut, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks.generation import Decoder
from headstart.tasks.multiple_choice import Item, Scored, contaminated, encode, group_stderr, metric_of, pick, read_items, results, score_items

CPU = torch.device("cpu")
TEXT = "the quick brown fox jumps over the lazy dog while the old cat sleeps in the warm sun and nobody looks at the river. " * 3
KINDS: dict[str, Any] = {
    "gpt2": lambda size: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=24, eos_token_id=0, bos_token_id=0)
    ),
    "llama": lambda size: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                                 max_position_embeddings=24, eos_token_id=0, bos_token_id=0)
    ),
    "gpt_neox": lambda size: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                                   max_position_embeddings=24, eos_token_id=0, bos_token_id=0)
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A random network of 24 positions with a byte-level tokenizer whose end of text is token 0."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT], vocab_size=320, min_frequency=1, special_tokens=["<|endoftext|>"])
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp(request.param)
    save_model_folder(KINDS[request.param](320), tokenizer._tokenizer, folder)
    return Decoder.load(folder)


def item(context: str, *choices: str, answer: int = 0, **other: Any) -> Item:
    return Item(other.pop("id", "x"), other.pop("task", "t"), other.pop("group", "g"), context, choices, answer, **other)


ITEMS = [
    item("the quick brown", " fox jumps", " dog", " river the cat", id="a"),
    item("", "the old cat sleeps", "nobody looks", id="b"),  # no context: the first word counts too
    item("the lazy", " dog", " cat sleeps", id="c"),
    item(TEXT[:110], " sun and nobody", " river", id="d"),  # longer than the network: cut
    item("the old", " cat", " dog", id="e"),
]


def by_hand(decoder: Decoder, context: str, choice: str, room: int = 24) -> float:
    """log p(choice | end of text, context), one sequence, one token after the other."""
    before, whole = decoder.ids([context, context + choice])
    own = whole[len(before) :]
    kept = whole[max(0, len(before) + len(own) - room) : len(before)]
    row = [decoder.end, *kept, *own]
    logits = decoder.model(torch.tensor([row[:-1]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(row) - len(own) - 1 + place, token]) for place, token in enumerate(own))


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "plain"])
@torch.no_grad()
def test_log_probabilities_are_those_of_single_sequences(decoder: Decoder, cached: bool) -> None:
    found = score_items(decoder, ITEMS, CPU, cached=cached)
    for of, sums in zip(ITEMS, found.log_probs, strict=True):
        assert sums == pytest.approx([by_hand(decoder, of.context, choice) for choice in of.choices], rel=1e-4), of.id


def test_what_is_too_long_loses_the_beginning_of_its_context(decoder: Decoder) -> None:
    encoded = encode(decoder, ITEMS)
    cut = encoded[3]
    assert not cut.shared
    for context, choice in zip(cut.contexts, cut.choices, strict=True):
        assert context[0] == decoder.end
        assert len(context) + len(choice) - 1 == 24  # inputs: all positions are used
        whole = decoder.ids([ITEMS[3].context])[0]
        assert context[1:] == whole[-len(context) + 1 :]
    assert all(entry.shared for place, entry in enumerate(encoded) if place != 3)
    with pytest.raises(BadInput, match=r"long: a choice of .* tokens is longer than the 24 positions") as error:
        encode(decoder, [item("the", " dog", TEXT, id="long", file="items.jsonl", number=7)])
    assert error.value.record == 7


def test_a_token_that_grows_over_the_cut_stays_with_the_choice(decoder: Decoder) -> None:
    (entry,) = encode(decoder, [item("the qui", "ck", "et")])  # "quick" is one token: the context alone ends otherwise
    whole = decoder.ids(["the quick"])[0]
    assert entry.contexts[0][1:] + entry.choices[0] == whole
    assert entry.choices[0]


def test_many_items_in_several_batches(decoder: Decoder) -> None:
    words = TEXT.split()
    many = [item(" ".join(words[i : i + i % 7]), f" {words[i]}", f" {words[-i]}", " dog cat", id=str(i)) for i in range(1, 60)]
    together, alone = score_items(decoder, many, CPU), [score_items(decoder, [of], CPU).log_probs[0] for of in many]
    for one, other in zip(together.log_probs, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def scored(*right: bool, groups: str = "", task: str = "t") -> Scored:
    items = [item("c", "aa", "b", group=group, task=task) for group in groups or "x" * len(right)]
    return Scored(items, [np.array([-1.0, -2.0] if is_right else [-3.0, -1.0]) for is_right in right])


def test_results_have_the_form_of_the_harness() -> None:
    found = results(scored(True, True, False, True))["t"]
    assert found["acc,none"] == 0.75
    assert found["acc_stderr,none"] == pytest.approx(0.25)  # sqrt(.25 .75 4 / 3) / 2
    assert found["acc_norm,none"] == 0.75
    assert (found["alias"], found["sample_len"]) == ("t", 4)
    two = Scored([*scored(True).items, *scored(False, task="u").items], [*scored(True).log_probs, *scored(False).log_probs])
    assert {task: figures["acc,none"] for task, figures in results(two).items()} == {"t": 1.0, "u": 0.0}


def test_items_of_a_group_are_drawn_together() -> None:
    right, alone = np.array([1.0] * 50 + [0.0] * 50), np.arange(100)
    assert group_stderr(right, alone) == pytest.approx(0.05, abs=0.005)
    assert group_stderr(right, alone // 10) == pytest.approx(0.158, abs=0.015)  # 10 groups that are all right or all wrong
    assert group_stderr(right, np.zeros(100, np.int64)) == "N/A"


def test_which_figure_a_task_is_judged_by() -> None:
    assert [metric_of(task) for task in ("genterm", "cont_med", "blimp")] == ["acc", "acc_norm", "acc"]


def test_a_choice_is_as_long_as_it_has_characters() -> None:
    """As in lm-evaluation-harness, which divides by the length of the string: by bytes the first choice, of 10, would be taken."""
    assert pick(np.array([-5.0, -4.0]), ("βββββ", "aaaaa"), "acc_norm") == 1


def test_items_are_read(tmp_path: Path) -> None:
    lines = [
        {"id": "q/1", "task": "med", "group": "d", "context": "c", "choices": [" a", " b"], "answer": 1},
        {"context": "", "choices": ["a", "b"], "answer": 0.0},
        {"id": 7, "question": "Is it?", "context": "It was seen.", "label": "maybe"},
        {"question": "Is it?", "label": "yes"},
    ]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second, third, fourth = read_items(tmp_path / "quiz.jsonl")
    assert (first.id, first.task, first.group, first.answer) == ("q/1", "med", "d", 1)
    assert (second.id, second.task, second.group) == ("quiz.jsonl:2", "quiz", "quiz.jsonl:2")
    assert (third.task, third.choices, third.answer) == ("pubmedqa", (" yes", " no", " maybe"), 2)
    assert third.context == "Abstract: It was seen.\nQuestion: Is it?\nAnswer:"
    assert fourth.context == "Question: Is it?\nAnswer:"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": 2}, "the answer is 2, of 2 choices"),
        ({"answer": -1}, "the answer is -1"),
        ({"answer": True}, "the answer is True"),
        ({"answer": 0.5}, "the answer is 0.5"),
        ({"choices": [" a"]}, r"has 1 choice\."),
        ({"choices": [" a", " "]}, "choice 1 is empty"),
        ({"choices": [" a", 3]}, "no list of strings"),
        ({"choices": "x"}, "no list"),
        ({"context": None}, "context is no string"),
        ({"answer": None, "choices": None}, "no list"),
    ],
    ids=["beyond", "negative", "bool", "half", "one", "empty", "number", "text", "context", "none"],
)
def test_a_bad_item_is_named(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    good = {"context": "c", "choices": [" a", " b"], "answer": 1}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | change))
    with pytest.raises(BadInput, match=why) as error:
        read_items(tmp_path / "quiz.jsonl")
    assert "quiz.jsonl, record 2" in str(error.value)


def test_a_missing_field_and_a_wrong_label_are_named(tmp_path: Path) -> None:
    for record, why in (({"context": "c", "answer": 0}, "no choices"), ({"question": "q", "label": "perhaps"}, "'perhaps'")):
        (tmp_path / "quiz.jsonl").write_text(json.dumps(record))
        with pytest.raises(BadInput, match=why):
            read_items(tmp_path / "quiz.jsonl")


def test_items_that_stand_in_the_pool() -> None:
    words = [f"w{i}" for i in range(20)]
    known = item(" ".join(words[:12]), f" {' '.join(words[12:])}", " wrong end", id="known")
    other = item(" ".join(words[:12]), " wrong end of it all here now", f" {words[12]}", id="other")  # 12 words and another choice
    short = item("a short", " one", " two", id="short")
    found = contaminated([known, other, short], ["nothing", "before, " + " ".join(words).upper() + ". After."])
    assert found.tolist() == [True, False, False]
    assert contaminated([short], ["A short one"]).tolist() == [True]  # as a whole text
    assert contaminated([short], ["Quite a short one"]).tolist() == [False]
    assert contaminated([], ["text"]).tolist() == []


def test_items_with_another_delimiter_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "quiz.csv").write_text("context;choices;answer\nc;d;0\n")
    with pytest.raises(BadInput, match=r"has no context .*\nIts columns seem to be separated by ';'"):
        read_items(tmp_path / "quiz.csv")
