"""Re-ranking: an encoder reads a query with a document and gives one score; the candidates of a first stage are ordered by it.

- Trained on groups of one relevant document and others that are not, with cross-entropy over the group's scores (PROP, arXiv 2010.10137; its authors
  on MS MARCO: 1 + 11, Albert-Ma/PROP#7). Which documents, is drawn anew each epoch.
- The head is that of the model where it has one (prop), else a new one. Without training, a new one gives noise: `score_pairs` never makes one.
- Queries and documents are tokenised once and laid into rows on the device; a row is no longer than its batch needs, rows of like length are scored
  together.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import mix_int
from headstart.data.retrieval.bm25 import BM25
from headstart.data.retrieval.collection import read_documents
from headstart.data.retrieval.trec import read_qrels, read_run, write_run
from headstart.data.text.tokenizer import FAILS, library_errors
from headstart.engine.device import use_device
from headstart.engine.optim import OptimizerConfig, build_optimizer, clip_gradients, set_learning_rate
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import autocast, precision_of
from headstart.interop.cross_encoder import RAW_SCORES, CrossEncoder, load_cross_encoder
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks.arms import Trained, of_each_seed, refuse_choosing_on_test, run_arms, seeds_and_draws, stuck_warnings
from headstart.tasks.epoch_loss import EpochLoss
from headstart.tasks.kept import Kept
from headstart.tasks.leaks import find_overlap, training_leaks
from headstart.tasks.metrics import Records
from headstart.tasks.reranking_config import RerankingConfig
from headstart.tasks.reranking_data import METRIC, RankingData, first_stage, random_order, ranking_scores, ranking_values, read_ranking
from headstart.tasks.result import PRETRAINED, Result

EVAL_TOKENS = 1 << 13
"""Tokens of the rows that are scored together."""
DEFAULT_LENGTH = 512
SHORTEST = 16


class PairRows:
    """Queries and documents as flat token ids on a device, from which rows of pairs are laid: `[CLS] query [SEP] document [SEP]`, or as the
    tokenizer's own template for two texts says. The document alone is cut to `length`.

    Args:
        queries, documents: their texts; only documents in `used` are tokenised.
        length: tokens of a row; query_length: of a query.
    """

    def __init__(
        self, encoder: CrossEncoder, queries: Sequence[str], documents: Sequence[str], used: np.ndarray, length: int, query_length: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.length, self.device = length, device
        self.pad = encoder.tokenizer.pad_token_id or 0
        self.segments = (getattr(encoder.module.config, "type_vocab_size", 0) or 0) >= 2
        self.before, self.between, self.after = template(encoder)
        room = length - len(self.before) - len(self.between) - len(self.after)
        if room < SHORTEST // 2:
            raise UsageError(f"Rows of {length} tokens have no room for a document.", f"Give --max-length {SHORTEST} or more.")
        of_queries = _ids(encoder, queries, min(query_length, max(1, room // 2)))
        texts = dict(zip(used.tolist(), _ids(encoder, [documents[i] for i in used], room), strict=True))
        self.query_lengths, self.queries, self.query_starts = _flat(of_queries, device)
        self.document_lengths, self.documents, self.document_starts = _flat([texts.get(i, []) for i in range(len(documents))], device)
        self.specials = len(self.before) + len(self.between) + len(self.after)

    def lengths(self, query: np.ndarray, document: np.ndarray) -> np.ndarray:
        """int64 [pairs]: tokens of each row."""
        return np.minimum(self.length, self.query_lengths[query] + self.document_lengths[document] + self.specials)

    def batch(self, query: np.ndarray, document: np.ndarray) -> dict[str, Tensor]:
        """Rows of these pairs, padded to the longest: `input_ids`, `attention_mask` and, where the network has them, `token_type_ids`, int64 [pairs,
        length]."""
        width = int(self.lengths(query, document).max())
        q, d = (torch.from_numpy(values).to(self.device, non_blocking=True) for values in (query, document))
        q_size = torch.from_numpy(self.query_lengths[query]).to(self.device)[:, None]
        left = np.minimum(self.document_lengths[document], self.length - self.specials - self.query_lengths[query])
        d_size = torch.from_numpy(left).to(self.device)[:, None]
        place = torch.arange(width, device=self.device).expand(len(query), width)
        ids = torch.full_like(place, self.pad)
        at = 0
        for special in self.before:
            ids = torch.where(place == at, special, ids)
            at += 1
        in_query = place - at
        ids = torch.where((in_query >= 0) & (in_query < q_size), _taken(self.queries, self.query_starts[q], in_query), ids)
        rest = in_query - q_size  # 0 behind the query
        for number, special in enumerate(self.between):
            ids = torch.where(rest == number, special, ids)
        in_document = rest - len(self.between)
        ids = torch.where((in_document >= 0) & (in_document < d_size), _taken(self.documents, self.document_starts[d], in_document), ids)
        rest = in_document - d_size
        for number, special in enumerate(self.after):
            ids = torch.where(rest == number, special, ids)
        mask = rest < len(self.after)
        batch = {"input_ids": ids, "attention_mask": mask.long()}
        return batch | ({"token_type_ids": ((in_document >= 0) & mask).long()} if self.segments else {})


def template(encoder: CrossEncoder) -> tuple[list[int], list[int], list[int]]:
    """Special ids before a query, between it and a document, and behind that."""
    tokenizer = encoder.tokenizer
    word = next((text for text in ("a", "the", "1", "x") if tokenizer(text, add_special_tokens=False)["input_ids"]), None)
    if word is None:
        raise BadInput("the tokenizer knows no word", "Give the tokenizer that the network was trained with.")
    piece = tokenizer(word, add_special_tokens=False)["input_ids"]
    pair = tokenizer(word, word)["input_ids"]
    first = _find(pair, piece, 0)
    second = _find(pair, piece, first + len(piece))
    return pair[:first], pair[first + len(piece) : second], pair[second + len(piece) :]


def _find(row: list[int], part: list[int], start: int) -> int:
    return next(i for i in range(start, len(row) - len(part) + 1) if row[i : i + len(part)] == part)


def _ids(encoder: CrossEncoder, texts: Sequence[str], most: int) -> list[list[int]]:
    if not len(texts):
        return []
    with library_errors(FAILS, None, any_error=False):
        found = encoder.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=most, return_attention_mask=False)
    return list(found["input_ids"])


def _flat(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[np.ndarray, Tensor, Tensor]:
    lengths = np.array([len(row) for row in rows], np.int64)
    values = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    starts = np.cumsum(lengths) - lengths
    return lengths, torch.from_numpy(np.append(values, 0)).to(device), torch.from_numpy(starts).to(device)


def _taken(flat: Tensor, starts: Tensor, place: Tensor) -> Tensor:
    return flat[(starts[:, None] + place.clamp(min=0)).clamp(max=len(flat) - 1)]


def rows_of(encoder: CrossEncoder, data: RankingData, config: RerankingConfig, device: torch.device) -> PairRows:
    """The rows of a file's queries with their candidates and relevant documents."""
    judged = data.judged or []
    wanted = [*data.candidates[data.candidates >= 0].tolist(), *chain.from_iterable(judged)]
    return PairRows(encoder, data.queries, data.documents.texts, np.unique(np.array(wanted, np.int64)), row_length(encoder, config),
                    config.max_query_length, device)  # fmt: skip


def row_length(encoder: CrossEncoder, config: RerankingConfig) -> int:
    """Raises UsageError for rows that are longer than the network."""
    limit = encoder.max_length
    if config.max_length is not None and limit is not None and config.max_length > limit:
        raise UsageError(f"max_length is {config.max_length}, but the network has {limit} positions.", f"Give at most {limit}.")
    wanted = config.max_length or DEFAULT_LENGTH
    return wanted if limit is None else min(wanted, limit)


@torch.no_grad()
def score_pairs(
    module: nn.Module, rows: PairRows, data: RankingData, config: RerankingConfig, report: Callable[[int], None] = lambda pairs: None
) -> np.ndarray:
    """float32 [queries, most]: the score of every candidate, -inf where there is none.

    Args:
        report: called with the number of pairs that were scored since the last call.
    """
    query, document = data.pairs()
    lengths, device = rows.lengths(query, document), rows.device
    order = np.argsort(lengths, kind="stable")
    precision = precision_of(config, device)
    module.eval()
    found, start = [], 0
    while start < len(order):
        stop = start + max(1, EVAL_TOKENS // int(lengths[order[start]]))
        stop = start + max(1, EVAL_TOKENS // int(lengths[order[min(stop, len(order)) - 1]]))
        part = order[start:stop]
        with autocast(device, precision):
            found.append(_scores(module, rows.batch(query[part], document[part])))
        report(len(part))
        start = stop
    values = np.empty(len(order), np.float32)
    values[order] = torch.cat(found).cpu().numpy() if found else []
    return data.spread(values).astype(np.float32)


def _scores(module: Any, batch: dict[str, Tensor]) -> Tensor:
    scores: Tensor = module(**batch).logits[:, 0]
    return scores.float()


# --- training -------------------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Groups:
    """What a training draws its groups from.

    Attributes:
        queries: int64 [usable], queries with a relevant document and a candidate that is not.
        relevant, others: of each, numbers of documents.
    """

    queries: np.ndarray
    relevant: list[np.ndarray]
    others: list[np.ndarray]

    @classmethod
    def of(cls, data: RankingData) -> Groups:
        """Raises BadInput where no query can be used."""
        queries, relevant, others = [], [], []
        for number, (candidates, judged) in enumerate(zip(data.candidates, data.judged or [], strict=True)):
            rest = np.array([i for i in candidates.tolist() if i >= 0 and i not in judged], np.int64)
            if judged and len(rest):
                queries.append(number)
                relevant.append(np.array(sorted(judged), np.int64))
                others.append(rest)
        if not queries:
            what = "has no query with a relevant document and a candidate that is not relevant"
            raise BadInput(what, "A group needs both: give more --candidates, or another --run.", file=data.source or None)
        return cls(np.array(queries, np.int64), relevant, others)

    def draw(self, negatives: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(order of the queries int64 [usable], documents int64 [usable, 1 + negatives] in that order, the relevant one first, -1 where a query has
        fewer), by (seed, epoch) alone."""
        random = np.random.default_rng([mix_int(seed), epoch])
        order = random.permutation(len(self.queries))
        documents = np.full((len(order), 1 + negatives), -1, np.int64)
        for row, place in enumerate(order):
            documents[row, 0] = random.choice(self.relevant[place])
            chosen = random.permutation(self.others[place])[:negatives]
            documents[row, 1 : 1 + len(chosen)] = chosen
        return self.queries[order], documents


def group_loss(scores: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy over each group with label 0, summed.

    Args:
        scores: [groups, documents]; there: bool, which of them are documents.
    """
    scores = scores.masked_fill(~there, -torch.inf)
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device), reduction="sum")


def train(
    encoder: CrossEncoder,
    rows: PairRows,
    groups: Groups,
    config: RerankingConfig,
    learning_rate: float,
    seed: int,
    choose: Callable[[nn.Module], float] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[float, int, float]:
    """Trains a network in place. With `choose`, a score of the network, the epoch that has its best is kept, of equal ones the first, and
    `config.patience` may end it.

    Returns:
        the mean loss of a group over the last epoch, the number of steps that were made, and the epoch that was kept.
    """
    device = rows.device
    module: Any = encoder.module
    module.to(device)
    a_batch = min(config.batch, len(groups.queries))
    steps_an_epoch = math.ceil(len(groups.queries) / a_batch)
    total = max(1, int(steps_an_epoch * config.epochs))
    schedule = ScheduleConfig(name="constant", warmup_share=config.warmup_share)
    precision = precision_of(config, device)
    best: tuple[float, float, dict[str, Tensor]] | None = None
    patience = math.inf if config.patience is None else config.patience
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mix_int(seed) >> 1)
        settings = OptimizerConfig(
            learning_rate=learning_rate, weight_decay=config.weight_decay, beta2=config.beta2, clip_norm=config.clip_norm
        )
        optimizer = build_optimizer(module, settings)
        parameters = list(module.parameters())
        losses = EpochLoss(total, learning_rate, device, say)
        for step in range(total):
            inside = step % steps_an_epoch
            if inside == 0:
                queries, documents = groups.draw(config.negatives, seed, step // steps_an_epoch)
                losses.begin_epoch()
                module.train()
            set_learning_rate(optimizer, learning_rate * multiplier(step, total, schedule))
            optimizer.zero_grad(set_to_none=True)
            chosen = np.arange(inside * a_batch, min((inside + 1) * a_batch, len(queries)))
            for part in np.array_split(chosen, math.ceil(len(chosen) / (config.micro_batch or len(chosen)))):
                there = documents[part] >= 0
                where, place = np.nonzero(there)
                with autocast(device, precision):
                    scores = _scores(module, rows.batch(queries[part][where], documents[part][where, place]))
                laid = torch.zeros(there.shape, device=device)
                laid = laid.index_put((torch.from_numpy(where).to(device), torch.from_numpy(place).to(device)), scores)
                loss = group_loss(laid, torch.from_numpy(there).to(device))
                (loss / len(chosen)).backward()
                losses.add(loss)
            clip_gradients(parameters, config.clip_norm)
            optimizer.step()
            losses.end_step(step, len(chosen))
            if choose is not None and (inside == steps_an_epoch - 1 or step == total - 1):
                score = choose(module)
                epoch = (step + 1) / steps_an_epoch
                if best is None or score > best[0]:
                    best = score, epoch, copy.deepcopy(module.state_dict())
                elif epoch - best[1] >= patience:
                    break
    mean = losses.mean()
    if best is not None:
        module.load_state_dict(best[2])
    module.eval()
    return mean, step + 1, best[1] if best is not None else total / steps_an_epoch


# --- the whole ------------------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Reranker:
    """A trained network, and what it said of the test file."""

    encoder: CrossEncoder
    scores: np.ndarray


@dataclasses.dataclass
class Bench:
    """Everything that the trainings of one `finetune_reranking` share."""

    folder: Path
    config: RerankingConfig
    data: dict[str, RankingData]
    trains: dict[int, RankingData]  # of each seed
    device: torch.device
    rows: dict[str, PairRows] = dataclasses.field(default_factory=dict)

    def network(self, arm: str, seed: int) -> CrossEncoder:
        config = self.config
        return load_cross_encoder(self.folder, fresh=arm != PRETRAINED, new_head=config.new_head, seed=seed, dropout=config.dropout)

    def laid(self, encoder: CrossEncoder, name: str, data: RankingData) -> PairRows:
        if name not in self.rows:
            self.rows[name] = rows_of(encoder, data, self.config, self.device)
        return self.rows[name]

    def scores(self, encoder: CrossEncoder, part: str) -> np.ndarray:
        data = self.data[part]
        return score_pairs(encoder.module, self.laid(encoder, part, data), data, self.config)

    def train(self, arm: str, seed: int, learning_rate: float, say: Callable[[str], None]) -> Trained[Reranker]:
        """One training and its scores."""
        encoder, data = self.network(arm, seed), self.trains[seed]
        rows = self.laid(encoder, f"train {id(data)}", data)

        def choose(module: nn.Module) -> float:
            return ranking_scores(self.scores(encoder, "dev"), self.data["dev"])[METRIC]

        chosen = choose if "dev" in self.data else None
        loss, steps, epoch = train(encoder, rows, Groups.of(data), self.config, learning_rate, seed, chosen, say)
        metrics: dict[str, dict[str, float]] = {}
        scores: dict[str, np.ndarray] = {}
        for part in ("dev", "test"):
            if part in self.data:
                scores[part] = self.scores(encoder, part)
                metrics[part] = ranking_scores(scores[part], self.data[part])
        notes = [] if chosen is None else [f"{arm}, seed {seed}: the weights after epoch {epoch:g} are kept, the best on dev"]
        found = scores["test"][np.isfinite(scores["test"])]
        stuck = "it gives the same score to every document" if float(np.ptp(found)) < 1e-6 else None
        values = ranking_values(scores["test"], self.data["test"])[METRIC]
        return Trained(Reranker(encoder, scores["test"]), metrics, loss, steps, stuck, Records.of_shares(values.tolist()), notes)


def finetune_reranking(
    model_folder: str | Path,
    train: Any,
    test: Any,
    dev: Any = None,
    config: RerankingConfig | None = None,
    seeds: int | Sequence[int] = 3,
    baseline: bool = True,
    report: Callable[[str], None] | None = None,
    out: str | Path | None = None,
    kept: Kept | None = None,
) -> Result:
    """Fine-tunes an encoder as a re-ranker and scores it on the test file.

    Args:
        train, test, dev: files of queries, or `RankingData`; of `train` also a list, one for each seed. With dev the best epoch is kept; it is needed
            to try several learning rates.
        baseline: also train the same network from random initialisation.
        out: a folder for result.json, the model, and test.run, the test file's candidates in its order.
        kept: trainings of an earlier call into `out`, which are not made again.

    Raises:
        BadInput: a file or the folder cannot be used. UsageError: a setting is wrong. Diverged: a loss was not finite.
    """
    config = config or RerankingConfig()
    config.check()
    say = report or (lambda line: None)
    refuse_choosing_on_test(config.rates, dev)
    seed_list, draws = seeds_and_draws(seeds, train, "training files")
    opened = opener(config)
    trains = [opened(draw) for draw in draws]
    data = {"test": opened(test)} | ({} if dev is None else {"dev": opened(dev)})
    for of_seed in trains:
        Groups.of(of_seed)
    bench = Bench(Path(model_folder), config, data, of_each_seed(seed_list, trains), use_device(config.device))
    begun = bench.network(PRETRAINED, seed_list[0])
    begun.module.to(bench.device)  # type: ignore[arg-type]
    beside = {"candidates as they came": first_stage(data["test"])[METRIC], "random order": random_order(data["test"])}
    if begun.kept:
        beside["the model's own head, without training"] = ranking_scores(bench.scores(begun, "test"), data["test"])[METRIC]
    say(f"{METRIC} on the test file: " + ", ".join(f"{name} {value:.4f}" for name, value in beside.items()) + ".")
    if not begun.kept:
        say("The model has no head of one score: a new one begins random." if not config.new_head else "A new head, as asked for.")
    arms, first = run_arms(bench.train, seed_list, config.rates, METRIC, baseline, say, kept=kept)
    tested = data["test"].leak_texts()
    shared = find_overlap(tested, chain.from_iterable(part.leak_texts() for part in trains)).sentence("the training file")
    warnings = [f"{part.source or 'data'}: {note}." for part in (*trains, *data.values()) for note in part.notes]
    result = Result(
        "reranking",
        METRIC,
        str(model_folder),
        arms,
        {"train": len(trains[0]), **{name: len(part) for name, part in data.items()}, "head": "kept" if begun.kept else "new", METRIC: beside},
        [shared, *training_leaks(tested, Path(model_folder))],
        [*dict.fromkeys(warnings), *stuck_warnings(arms, "Try a lower learning rate or more epochs.")],
        dataclasses.asdict(config),
    )
    if out is not None:

        def write(place: Path) -> None:
            tuned = first()
            save_reranker(tuned.encoder, place)
            write_run(Path(out) / "test.run", data["test"].run(tuned.scores), "headstart")

        result.save(out, write, kept)
    return result


def opener(config: RerankingConfig) -> Callable[[Any], RankingData]:
    """What reads a file of queries with the collection, judgements and first stage of the settings; the collection is read once."""
    known: dict[str, Any] = {}

    def opened(source: Any) -> RankingData:
        if isinstance(source, RankingData):
            return source
        if not known:
            assert config.documents is not None
            assert config.qrels is not None
            known["documents"], known["qrels"] = read_documents(config.documents), read_qrels(config.qrels)
            known["run"] = None if config.run is None else read_run(config.run)
            known["index"] = BM25(known["documents"].texts) if config.run is None else None
        return read_ranking(source, known["documents"], known["run"], known["qrels"], config.candidates, known["index"])

    return opened


def save_reranker(encoder: CrossEncoder, folder: Path) -> None:
    """A folder that transformers and sentence-transformers (CrossEncoder) load; scores come out raw."""
    encoder.module.config.sentence_transformers = dict(RAW_SCORES)
    save_model_folder(encoder.module, encoder.tokenizer, folder)
