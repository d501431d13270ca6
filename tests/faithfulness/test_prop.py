"""The numbered checks of the specification of prop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from headstart.backbones.text import encode
from headstart.claims._data import CHECKOUT, data_folder
from headstart.claims.prop import TASK, read_collection
from headstart.core.errors import BadInput
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.engine.method import Context
from headstart.methods.prop.background import background_of
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Pairs, Prop
from headstart.methods.prop.network import PropNetwork, load_network, load_state, official_state
from headstart.methods.prop.statistics import Statistics, statistics_of
from headstart.objectives.pairwise import pair_losses
from headstart.objectives.word_sets import Sets, WordSets, dirichlet, keep_probability, positive_first, truncated_poisson

SMALL: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48, "sequence_length": 64}
SMALL |= {"least_count": 2, "short_doc_tokens": 0}


def documents() -> list[str]:
    """A part of Wikipedia's passages, with their titles."""
    return read_collection(data_folder("wiki_xquad", fixture=True), 200).texts


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    folder = tmp_path_factory.mktemp("prop")
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    return prepare_text([folder / "docs.jsonl"], folder / "store", TextConfig(vocab_size=700, held_out_share=0.1))


@pytest.fixture(scope="module")
def method(store: TextStore) -> Prop:
    torch.manual_seed(0)
    return Prop(PropConfig(**SMALL), store).eval()


def context(rows: int, step: int = 0) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def batch_of(method: Prop, rows: int = 16, first: int = 0) -> dict[str, Tensor]:
    found = Prop.rows(method.store, method.config)
    return {name: torch.as_tensor(value) for name, value in found.batch(np.arange(first, first + rows)).items()}


# --- 1, 2: the language model of a document -------------------------------------------------------------------------------------------------------

TF = torch.tensor([3.0, 2, 1, 0, 0], dtype=torch.float64)
OF_COLLECTION = torch.tensor([0.02, 0.01, 0.005, 0.03, 0.015], dtype=torch.float64)


def test_01_dirichlet_smoothing() -> None:
    wanted = torch.tensor([0.2, 0.13125, 0.065625, 0.01875, 0.009375], dtype=torch.float64)
    torch.testing.assert_close(dirichlet(TF, torch.tensor([6.0], dtype=torch.float64), OF_COLLECTION, 10), wanted)


def orchard(**settings: Any) -> tuple[WordSets, Tensor, Tensor]:
    """The sampler of the same five words, and a document with three of them: (sampler, hashes, counts)."""
    given: dict[str, Any] = {"keep": np.ones(5), "mu": 10.0, "mean_length": 3.0, "vocabulary": 50} | settings
    sampler = WordSets(np.arange(5) * 7, OF_COLLECTION.numpy(), **given)
    return sampler, torch.arange(3)[None] * 7, TF[None, :3].long()


def test_02_a_set_is_scored_by_what_it_holds_each_word_as_often_as_it_comes() -> None:
    sampler, hashes, counts = orchard()
    p = {number: float(value) for number, value in enumerate(dirichlet(TF, torch.tensor([6.0]).double(), OF_COLLECTION, 10))}
    assert np.log(p[0] * p[1]) == pytest.approx(-3.640089, abs=1e-6)
    assert np.log(p[2] * p[3]) == pytest.approx(-6.700360, abs=1e-6)
    rng = Rng.at(0, 0, torch.arange(2000))
    sets = sampler.draw(rng, hashes.expand(2000, -1), counts.expand(2000, -1))
    twice = 0
    for words, length, scores in zip(sets.words.tolist(), sets.lengths.tolist(), sets.scores.tolist(), strict=True):
        for of_set, score in zip(words, scores, strict=True):
            assert score == pytest.approx(sum(np.log(p[word]) for word in of_set[:length]))
            twice += len(set(of_set[:length])) < length
    assert twice > 500
    known = Sets(torch.tensor([[[0, 1], [2, 3]], [[2, 3], [0, 1]], [[0, 2], [1, 3]]]), torch.tensor([2, 2, 2]), torch.tensor(
        [[-3.640089, -6.700360], [-6.700360, -3.640089], [-4.0, -4.0]]))  # fmt: skip
    words, differs = positive_first(known)
    assert words[:2, 0].tolist() == [[0, 1], [0, 1]]
    assert words[2, 0].tolist() == [1, 3], "on a tie the second set counts as the likelier one"
    assert differs.tolist() == [True, True, False]


# --- 3, 4: lengths, and words that are kept -------------------------------------------------------------------------------------------------------


def test_03_lengths_are_a_poisson_without_zero_and_alike_in_a_pair() -> None:
    cdf = truncated_poisson(3.0)
    p = np.diff(cdf, prepend=0)
    assert p[:6] == pytest.approx([0.1572, 0.2358, 0.2358, 0.1768, 0.1061, 0.0531], abs=5e-5)
    lengths = np.arange(1, len(p) + 1)
    assert (p * lengths).sum() == pytest.approx(3.1572, abs=5e-5)
    assert (p * lengths**2).sum() - (p * lengths).sum() ** 2 == pytest.approx(2.661, abs=5e-4)
    sampler, hashes, counts = orchard()
    sets = sampler.draw(Rng.at(3, 0, torch.arange(10_000)), hashes.expand(10_000, -1), counts.expand(10_000, -1))
    assert float(sets.lengths.double().mean()) == pytest.approx(3.1572, abs=0.065)
    assert int(sets.lengths.min()) == 1
    assert sets.lengths.shape == (10_000,), "one length for both sets of a pair"
    assert sets.words.shape[:2] == (10_000, 2)


def test_04_frequent_words_are_kept_less_often() -> None:
    f = np.array([1e-5, 1e-4, 1e-3, 1e-2, 5e-4, 2.618e-4, 2.63e-4, 0.0])
    kept = keep_probability(f, 1e-4)
    assert kept[[0, 1, 7]].tolist() == [1, 1, 1], "and one without a count"
    assert kept[2:5] == pytest.approx([0.4162, 0.11, 0.6472], abs=5e-5)
    assert kept[5] == pytest.approx(1, abs=2e-5)
    assert kept[6] < 1
    assert np.sqrt(10) + 10 == pytest.approx(13.16, abs=5e-3)


def test_04_words_of_a_table_without_counts_are_kept(store: TextStore, tmp_path: Path) -> None:
    found = statistics_of(store, "unicode", "english")
    table = tmp_path / "words.tsv"
    table.write_text("word\tdf\tctf\n" + "".join(f"{word}\t{20 + i}\t{'' if i % 2 else 50}\n" for i, word in enumerate(found.words[:100])))
    background = background_of(found, PropConfig(statistics=str(table)))
    frequency = 50 / (50 * 50)
    assert background.keep[:100:2] == pytest.approx(keep_probability(np.array([frequency]), 1e-4)[0])
    assert (background.keep[1:100:2] == 1).all()
    assert background.probability[:100] == pytest.approx((20 + np.arange(100)) / (20 * 100 + 99 * 50))
    assert not background.probability[100:].any()


# --- 5: the loss ----------------------------------------------------------------------------------------------------------------------------------


def test_05_losses_of_pairs() -> None:
    scores = torch.tensor([1.0, 1.0, 3.0, 1.0, -1.0, 1.0])
    torch.testing.assert_close(pair_losses(scores), torch.tensor([1.0, 0.238406, 1.761594]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pair_losses(scores + 5), pair_losses(scores), atol=1e-6, rtol=0)
    p = scores.view(-1, 2).softmax(1)
    torch.testing.assert_close(pair_losses(scores), (1 - (p[:, 0] - p[:, 1])).clamp(min=0), atol=1e-6, rtol=0)
    assert pair_losses(scores, "hinge").tolist() == [1, 0, 3]
    torch.testing.assert_close(pair_losses(scores, "logistic"), torch.tensor([np.log(2), np.log1p(np.exp(-2)), np.log1p(np.exp(2))]).float())


# --- 6, 7: what is drawn from ---------------------------------------------------------------------------------------------------------------------


def test_06_words_are_drawn_by_the_document_s_language_model() -> None:
    sampler, hashes, counts = orchard(mean_length=40.0)
    n = 1300
    sets = sampler.draw(Rng.at(1, 0, torch.arange(n)), hashes.expand(n, -1), counts.expand(n, -1))
    inside = torch.arange(sampler.longest) < sets.lengths[:, None, None]
    drawn = sets.words[inside.expand_as(sets.words)][:50_000]
    p = dirichlet(TF, torch.tensor([6.0]).double(), OF_COLLECTION, 10)
    seen = torch.bincount(drawn, minlength=5)
    assert len(drawn) == 50_000
    assert stats.chisquare(seen.numpy(), (p / p.sum() * 50_000).numpy()).pvalue > 1e-3
    few, hashes, counts = orchard(vocabulary=1)  # one word is there already: 100 are added, all of which are known
    few.MORE = 0
    sets = few.draw(Rng.at(1, 0, torch.arange(n)), hashes.expand(n, -1), counts.expand(n, -1))
    inside = torch.arange(few.longest) < sets.lengths[:, None, None]
    assert set(sets.words[inside.expand_as(sets.words)].tolist()) == {0, 1, 2}, "no word comes that V_D lacks"


def test_06_a_draw_that_is_accepted_or_drawn_anew_is_one_from_the_product() -> None:
    keep = np.array([0.2, 1, 0.5, 1, 1.0])
    sampler, hashes, counts = orchard(keep=keep, mean_length=40.0)
    sets = sampler.draw(Rng.at(2, 0, torch.arange(600)), hashes.expand(600, -1), counts.expand(600, -1))
    inside = torch.arange(sampler.longest) < sets.lengths[:, None, None]
    drawn = sets.words[inside.expand_as(sets.words)][:40_000]
    p = dirichlet(TF, torch.tensor([6.0]).double(), OF_COLLECTION, 10).numpy()
    random, seen = np.random.default_rng(0), np.zeros(5)
    for word in random.choice(5, 200_000, p=p / p.sum()):  # as the reference does it
        seen[word] += random.random() < keep[word]
    mine = torch.bincount(drawn, minlength=5).numpy()
    assert stats.chi2_contingency([mine, seen]).pvalue > 1e-3


@pytest.mark.parametrize(("own", "most"), [(120, 380), (700, 800)])
def test_07_words_are_added_that_the_document_lacks(own: int, most: int) -> None:
    total = 5000
    background = np.random.default_rng(0).dirichlet(np.ones(total)) * 0.8
    sampler = WordSets(np.arange(total), background, np.ones(total), 50.0, 3.0, 500)
    hashes, counts = torch.arange(own)[None].repeat(20, 1) * 2, torch.ones(20, own, dtype=torch.int64)
    found = sampler.vocabulary_of(Rng.at(0, 0, torch.arange(20)), hashes, counts)
    for words in found.words:
        there = words[words != sampler.nothing]
        added = there[~torch.isin(there, hashes[0])]
        assert torch.isin(hashes[0], there).all()
        allowed = most if own < 500 else most - own
        assert 0.6 * allowed < len(added) <= allowed
        assert len(there.unique()) == len(there), "each word once"


# --- 8, 9: rows -----------------------------------------------------------------------------------------------------------------------------------


def rows_of(method: Prop, rows: int = 100, step: int = 0) -> tuple[Pairs, Tensor, Tensor]:
    pairs = method.pairs(batch_of(method, rows), context(rows, step))
    return pairs, *method.choose(pairs.rows, pairs.inner)


def test_08_whole_words_of_the_document_are_hidden_and_never_of_the_set(method: Prop) -> None:
    alike = long = 0
    for step in range(6):
        pairs, positions, weights = rows_of(method, step=step)
        shown = method.hide(pairs.rows, pairs.inner, positions, weights)
        places: list[set[int]] = []
        for row, (ids, kind, where, used) in enumerate(zip(pairs.rows["input_ids"], pairs.rows["token_type_ids"], positions, weights, strict=True)):
            hidden = set(where[used > 0].tolist())
            begin, end = int((kind == 0).nonzero()[0]), int(kind.nonzero().max())
            first = int(kind.nonzero().min())
            assert all(first <= place < end for place in hidden), "after the first [SEP], before the last"
            starts = [i for i in range(first, end) if i == first or not bool(method.continues_word[ids[i]])]
            assert len(hidden) <= min(60, max(1, round(0.15 * len(starts))))
            for start, stop in zip(starts, [*starts[1:], end], strict=True):
                assert len(hidden & set(range(start, stop))) in (0, stop - start)
            assert torch.equal(shown[row, begin:first], ids[begin:first])
            places.append(hidden)
            if row % 2 and len(starts) >= 20:
                long += 1
                alike += places[-1] == places[-2]
    assert long > 200
    assert alike <= 0.01 * long


def test_08_at_most_sixty_tokens_are_hidden(store: TextStore) -> None:
    rule = Prop(PropConfig(**SMALL | {"sequence_length": 512}), store).rule("train")
    assert rule.slots(512) == 60
    assert (rule.mask_share, rule.random_share) == (0.8, 0.1)


def test_09_only_the_document_is_cut(method: Prop, store: TextStore) -> None:
    config = replace(method.config, sequence_length=512)
    wide = Prop(config, store)
    document = torch.full((1, 512), 100)
    document[0, 0], document[0, -1] = wide.special_ids["cls"], wide.special_ids["sep"]
    sizes = wide.piece_ends.diff()
    ones = (sizes == 1).nonzero()[:6, 0]
    words = torch.full((2, 8), wide.sets.nothing)
    words[0, :6], words[1, :2] = ones, ones[:2]
    rows = wide.lay(*wide.written(words, 508), document[:, 1:-1].repeat(2, 1), torch.tensor([[510], [510]]))
    assert rows["input_ids"][0, 1:7].tolist() == wide.pieces[wide.piece_ends[ones]].tolist()
    assert int((rows["input_ids"][0] == 100).sum()) == 503
    assert int((rows["input_ids"][1] == 100).sum()) == 507
    assert (rows["input_ids"][0, 7], rows["input_ids"][0, 511]) == (wide.special_ids["sep"], wide.special_ids["sep"])
    assert rows["token_type_ids"][0].tolist() == [0] * 8 + [1] * 504
    assert bool(rows["attention_mask"].all())


def test_09_the_document_stays_as_it_is_however_many_pairs_are_made_of_it(method: Prop) -> None:
    batch = batch_of(method, 8)
    before = {name: value.clone() for name, value in batch.items()}
    lengths = []
    for step in range(5):
        pairs = method.pairs(batch, context(8, step))
        for row, (ids, kind, mask) in enumerate(zip(*(pairs.rows[name] for name in ("input_ids", "token_type_ids", "attention_mask")), strict=True)):
            text = ids[mask & (kind == 1)][:-1]
            assert torch.equal(text, batch["input_ids"][row // 2, 1 : 1 + len(text)])
            room = method.config.sequence_length - 1 - int((kind[mask] == 0).sum())
            assert len(text) == min(room, int(batch["attention_mask"][row // 2].sum()) - 2 if "attention_mask" in batch else room)
        lengths.append(int(pairs.rows["attention_mask"].sum()))
    assert len(set(lengths)) == 1 or max(lengths) == method.config.sequence_length * 16
    assert all(torch.equal(batch[name], before[name]) for name in batch)


def test_09_a_set_is_written_word_by_word_in_the_order_of_its_draw(method: Prop) -> None:
    pairs = method.pairs(batch_of(method), context(16))
    words = statistics_of(method.store, "unicode", "english").words
    assert pairs.sets is not None
    ordered, _ = positive_first(pairs.sets)
    for row in range(32):
        ids, kind = pairs.rows["input_ids"][row], pairs.rows["token_type_ids"][row]
        length = int(pairs.sets.lengths[row // 2])
        text = " ".join(words[int(number)] for number in ordered[row // 2, row % 2, :length])
        wanted = method.tokenizer.encode(text, add_special_tokens=False).ids
        end = int(kind.nonzero().min()) - 1
        assert ids[1:end].tolist() == wanted[: method.config.sequence_length - 4]


# --- 10: gradients --------------------------------------------------------------------------------------------------------------------------------


def gradients(store: TextStore, **weights: float) -> dict[str, float]:
    torch.manual_seed(0)
    method = Prop(PropConfig(**SMALL, **weights), store)  # type: ignore[arg-type]
    method.loss(batch_of(method), context(16))["loss"].backward()
    return {name: float(p.grad.abs().sum()) if p.grad is not None else 0.0 for name, p in method.named_parameters()}


def test_10_each_head_learns_from_its_own_loss(store: TextStore) -> None:
    both, rop, mlm = gradients(store), gradients(store, mlm_weight=0.0), gradients(store, rop_weight=0.0)
    score = [name for name in both if name in ("model.cls.weight", "model.cls.bias") or ".pooler." in name]
    hidden = [name for name in both if name.startswith("model.cls.predictions.")]
    assert len(score) == 4
    assert len(hidden) == 5  # the output matrix is the table of words
    weights = [name for name in score if name != "model.cls.bias"]  # of two scores only the difference counts
    assert all(both[name] > 0 and rop[name] > 0 and mlm[name] == 0 for name in weights)
    assert all(both[name] > 0 and mlm[name] > 0 and rop[name] == 0 for name in hidden)
    assert mlm["model.bert.encoder.layer.0.attention.self.query.weight"] > 0 < rop["model.bert.encoder.layer.0.attention.self.query.weight"]


def test_10_with_one_loss_alone_the_rows_are_the_same(method: Prop, store: TextStore) -> None:
    alone = Prop(replace(method.config, rop_weight=0.0), store)
    assert torch.equal(rows_of(alone)[0].rows["input_ids"], rows_of(method)[0].rows["input_ids"])
    assert torch.equal(rows_of(alone)[1], rows_of(method)[1])
    (phase,) = alone.phases(10)
    assert phase.trainable is not None
    fixed = {name for name, _ in alone.named_parameters() if not phase.trainable(name)}
    assert fixed == {"model.cls.weight", "model.cls.bias", "model.bert.pooler.dense.weight", "model.bert.pooler.dense.bias"}
    (phase,) = Prop(replace(method.config, mlm_weight=0.0), store).phases(10)
    assert phase.trainable is not None
    assert {name for name, _ in alone.named_parameters() if not phase.trainable(name)} == {
        name for name, _ in alone.named_parameters() if name.startswith("model.cls.predictions.")
    }


# --- 11, 12, 13: what rules without a network reach ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wikipedia(tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    """All passages, title and text, with accents as they are: words are then those of the text itself."""
    try:
        folder = data_folder("wiki_xquad")
    except BadInput:
        pytest.skip("needs the passages (HEADSTART_DATA)")
    out = tmp_path_factory.mktemp("wikipedia")
    (out / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in read_collection(folder).texts))
    settings = TextConfig(vocab_size=2000, held_out_share=0.0, strip_accents=False)
    return prepare_text([out / "docs.jsonl"], out / "store", settings)


PASSAGES = 3943


def drawn(store: TextStore, **settings: Any) -> tuple[Statistics, Prop, Sets, Tensor]:
    """A pair of each passage: (statistics, method, sets, bool [pairs, 2, longest]: the word stands in its document)."""
    config = PropConfig(word_pattern="ascii", short_doc_tokens=0, min_doc_words=1, **settings)
    method, rows = Prop(config, store), Prop.rows(store, config)
    assert len(rows) == PASSAGES
    batch = {name: torch.as_tensor(value) for name, value in rows.batch(np.arange(PASSAGES)).items()}
    sets = method.sets.draw(Rng.at(0, 0, torch.arange(PASSAGES)), batch["words"], batch["counts"])
    numbers = method.sets.number(batch["words"], batch["counts"]).sort(1).values
    words = sets.words.flatten(1)
    at = torch.searchsorted(numbers, words).clamp(max=numbers.shape[1] - 1)
    inside = (numbers.gather(1, at) == words).view_as(sets.words)
    return statistics_of(store, "ascii", "english"), method, sets, inside


def right(sets: Sets, values: Tensor) -> float:
    """The share of pairs, ties of scores left out, that a rule orders as the scores do; its own ties count one half."""
    margin, truth = values[:, 0] - values[:, 1], sets.scores[:, 0] - sets.scores[:, 1]
    counted = truth.abs() > 1e-9
    agreed = torch.where(margin.abs() < 1e-9, 0.5, ((margin > 0) == (truth > 0)).double())
    return float(agreed[counted].mean())


def counted(sets: Sets) -> Tensor:
    return torch.arange(sets.words.shape[2]) < sets.lengths[:, None, None]


def test_13_words_of_the_passages_are_counted_as_in_the_official_code(wikipedia: TextStore) -> None:
    found = statistics_of(wikipedia, "ascii", "english")
    assert (found.total, len(found.words), int((found.ctf >= 10).sum()), found.documents) == (231_773, 29_277, 4_444, PASSAGES)
    assert found.mu == pytest.approx(58.78, abs=5e-3)
    assert background_of(found, PropConfig()).probability.sum() == pytest.approx(0.72, abs=5e-3), "what rare words have is missing"


@pytest.fixture(scope="module")
def draws(wikipedia: TextStore) -> dict[str, tuple[Prop, Sets, Tensor]]:
    """A pair of each passage by several settings."""
    settings: dict[str, dict[str, Any]] = {
        "official": {}, "floor 2": {"least_count": 2}, "counts": {"background": "ctf", "least_count": 1}, "every word kept": {"subsampling": 1.0},
    }  # fmt: skip
    return {name: drawn(wikipedia, **given)[1:] for name, given in settings.items()}


@pytest.mark.parametrize(("name", "share"), [("official", 0.52), ("floor 2", 0.55), ("counts", 0.57)])
def test_11_the_words_alone_say_little(name: str, share: float, draws: dict[str, tuple[Prop, Sets, Tensor]]) -> None:
    method, sets, _ = draws[name]
    of_words = torch.where(counted(sets), method.sets.background[sets.words].log(), 0.0).sum(2)
    assert right(sets, of_words) == pytest.approx(share, abs=0.02)


def test_11_with_documents_exchanged_the_committed_models_are_at_chance() -> None:
    """A leak would show there."""
    result = json.loads((CHECKOUT / "claims" / "results" / "prop-cpu.json").read_text())
    (arm,) = [arm for arm in result["arms"] if arm["arm"] == "prop"]
    beside = [run["beside"] for run in arm["runs"]]
    assert all(0.45 < of_one[f"{TASK}: with documents exchanged"] < 0.6 for of_one in beside)
    assert all(of_one[f"{TASK}: held-out pairs in order"] > of_one[f"{TASK}: with documents exchanged"] + 0.05 for of_one in beside)


@pytest.mark.parametrize(("name", "share"), [("official", 0.73), ("floor 2", 0.68)])
def test_12_counting_the_words_that_occur_orders_most_pairs(name: str, share: float, draws: dict[str, tuple[Prop, Sets, Tensor]]) -> None:
    _, sets, there = draws[name]
    assert right(sets, (there & counted(sets)).sum(2).double()) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("name", "share"), [("official", 0.85), ("floor 2", 0.90), ("every word kept", 0.81)])
def test_13_most_words_of_a_set_are_the_document_s(name: str, share: float, draws: dict[str, tuple[Prop, Sets, Tensor]]) -> None:
    _, sets, there = draws[name]
    assert float(there[counted(sets).expand_as(there)].double().mean()) == pytest.approx(share, abs=0.02)


# --- 14, 15: batches and checkpoints --------------------------------------------------------------------------------------------------------------


def test_14_a_pair_s_loss_does_not_depend_on_the_others(store: TextStore) -> None:
    torch.manual_seed(0)
    method = Prop(PropConfig(**SMALL, initial="matching"), store).eval()  # its scores lie apart
    batch, other = batch_of(method, 4), batch_of(method, 4, first=30)
    mixed = {name: torch.cat([batch[name][:1, : other[name].shape[1]], other[name][1:]]) for name in ("input_ids", "attention_mask") if name in batch}
    width = max(batch["words"].shape[1], other["words"].shape[1])
    for name in ("words", "counts"):
        filled = [torch.nn.functional.pad(one[name], (0, width - one[name].shape[1])) for one in (batch, other)]
        mixed[name] = torch.cat([filled[0][:1], filled[1][1:]])
    with torch.no_grad():
        found = [method.pairs(one, context(4)) for one in (batch, mixed)]
        losses = [pair_losses(method.model.score(encode(method.encoder, pairs.rows))) for pairs in found]
    torch.testing.assert_close(losses[0][:1], losses[1][:1])
    assert float((losses[0][1:] - losses[1][1:]).abs().min()) > 1e-3
    with pytest.raises(ValueError, match="3 scores are no pairs"):
        pair_losses(torch.zeros(3))


def official(hidden: int = 32) -> dict[str, Tensor]:
    """The weights of an official checkpoint, in a small size."""
    torch.manual_seed(3)
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    base = BertForMaskedLM(BertConfig(vocab_size=700, **sizes))
    state = {name: value for name, value in base.state_dict().items() if name not in ("cls.predictions.decoder.bias",)}
    state |= {"bert.pooler.dense.weight": torch.randn(hidden, hidden), "bert.pooler.dense.bias": torch.randn(hidden)}
    return state | {"cls.weight": torch.randn(1, hidden), "cls.bias": torch.randn(1)}


def put_official(folder: Path, store: TextStore, state: dict[str, Tensor], **config: Any) -> None:
    """A folder as the hub has it: pytorch_model.bin, config.json, a vocabulary."""
    from transformers import BertConfig

    folder.mkdir()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    BertConfig(vocab_size=700, **sizes, **config).save_pretrained(folder)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "tokenizer.json").write_text(store.tokenizer.to_str())


def test_15_official_names_load_whole(store: TextStore, tmp_path: Path) -> None:
    from transformers import BertConfig

    state = official()
    assert state["cls.weight"].shape == (1, 32)
    config = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    network = PropNetwork(BertConfig(vocab_size=700, hidden_size=32, **config))
    assert load_state(network, state) == []
    mine = network.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in state.items())
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for name, v in state.items()}
    assert old.keys() != state.keys()
    put_official(tmp_path / "hub", store, old)
    loaded, new = load_network(tmp_path / "hub")
    assert new == []
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in state.items())
    with pytest.raises(BadInput, match=r"have no place in the network, for example bert\.strange"):
        load_state(network, state | {"bert.strange": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"1 weights are not in the file, for example bert\.encoder"):
        load_state(network, {name: v for name, v in state.items() if name != "bert.encoder.layer.0.output.dense.weight"})


def test_15_an_export_is_a_cross_encoder_and_goes_on(method: Prop, store: TextStore, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    method.export(tmp_path / "export")
    again = Prop(method.config, store, init=tmp_path / "export").eval()
    own = method.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.state_dict().items() if name.startswith("model."))
    assert again.plan_lines() == method.plan_lines(), "nothing is new"
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["sentence_transformers"]["activation_fn"] == "torch.nn.modules.linear.Identity"
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    encoded = tokenizer("pumps and valves", documents()[0], truncation="only_second", max_length=64, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**encoded).logits[0, 0]
        mine = method.model.score(encode(method.encoder, dict(encoded)))[0]
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    assert "cls.weight" in official_state(tmp_path / "export")
