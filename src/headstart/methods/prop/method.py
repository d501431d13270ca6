"""PROP (WSDM 2021, arXiv 2010.10137): a cross-encoder learns which of two sets of words stands for a document, and masked language modelling on it.

1. Two sets of equally many words are drawn from the document's own smoothed unigram language model; the likelier one is the more representative
   (`objectives.word_sets`).
2. Both are read with the document, `[CLS] set [SEP] document [SEP]`; the score of the likelier one should be higher (`objectives.pairwise`).
3. Whole words of the document are hidden and predicted, other ones in the two rows.

A row of the data is a document; in training it becomes two rows, the likelier set first. Sets and masks are drawn on the device, anew each time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headstart.backbones.text import encode, encoder_config, mlm_head
from headstart.core.rng import Rng
from headstart.data.tables import suffix_of
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore
from headstart.engine.masked_method import MaskedMethod, MaskRule
from headstart.engine.method import Batch, Context, Phase, Predictions
from headstart.engine.text_method import model_folder, refuse_long_rows
from headstart.methods.prop import network
from headstart.methods.prop.background import background_of
from headstart.methods.prop.config import SETTINGS, PropConfig
from headstart.methods.prop.rows import PropRows, prop_rows
from headstart.methods.prop.statistics import statistics_of
from headstart.objectives.masking import choose_groups, word_groups
from headstart.objectives.pairwise import pair_accuracies, pair_losses
from headstart.objectives.projected_loss import projected_lm_loss
from headstart.objectives.token_loss import gather_positions
from headstart.objectives.word_sets import Sets, WordSets, positive_first

logger = logging.getLogger(__name__)

LOOKED_AT = 1 << 20
"""Bytes of a file that its first record is looked for in."""
NOT_LEARNT = 0.55
"""Share of held-out pairs in the right order, below which the prediction of sets is at chance."""
SHOWN_WORDS = 12
REMEMBERED = 0.98
"""Of the running mean of the accuracy, an update."""


class Pairs(NamedTuple):
    """The rows that a batch of documents becomes, neighbours for one document, the likelier set first."""

    rows: Batch
    """input_ids, token_type_ids int64 and attention_mask bool [2 * batch, length]."""
    inner: Context
    """What draws for these rows."""
    counts: Tensor
    """float32 [batch]: 1 for a pair that teaches something."""
    sets: Sets | None = None


def text_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """(tokens int64 [batch, length - 2], sizes int64 [batch, 1]) of documents that come as [CLS] document [SEP]."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    sizes = torch.full_like(ids[:, :1], ids.shape[1]) if mask is None else mask.sum(1, keepdim=True)
    return ids[:, 1:-1], sizes - 2


def of_pairs(ctx: Context) -> Context:
    """The context of the rows of pairs: each draws for itself."""
    numbers = (2 * ctx.rng.rows[:, None] + torch.arange(2, device=ctx.rng.rows.device)).flatten()
    return replace(ctx, rng=Rng(ctx.rng.key, numbers))


class Prop(MaskedMethod):
    """A re-ranker."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    wants_init = False
    part_metric, part_unit = "mlm_loss", "nats a hidden token"
    embedding_note: ClassVar[str] = "prop is trained to score a query with a document, not to give vectors that can be compared"

    config: PropConfig
    model: network.PropNetwork
    pieces: Tensor  # int64 [pieces of all words]
    piece_ends: Tensor  # int64 [words + 2]
    accuracy: Tensor  # float32, running mean

    def __init__(self, config: PropConfig, store: TextStore, init: Path | None = None) -> None:
        config.check_own() if init is not None else config.check()
        self._new: list[str] = []
        super().__init__(config, store, init)
        found = statistics_of(store, config.word_pattern, config.stopwords)
        background = background_of(found, config)
        self.sets = WordSets(found.hashes, background.probability, background.keep, found.mu, config.set_words, config.set_vocabulary)
        self.register_buffer("pieces", torch.from_numpy(found.pieces.astype("int64")), persistent=False)
        ends = torch.from_numpy(found.piece_ends.astype("int64"))
        self.register_buffer("piece_ends", torch.cat([ends, ends[-1:]]), persistent=False)  # the last one stands for no word: it has no pieces
        self.register_buffer("accuracy", torch.tensor(0.5))
        drawn = int((background.probability > 0).sum())
        self._said = [
            f"  words      {config.word_pattern} letters without {config.stopwords} stop words: {len(found.words):,}, of which {drawn:,} can be drawn"
            f" (p(w|C) {float(background.probability.sum()):.2f} in all); {found.mu:.1f} a document (mu)",
            f"  pairs      a row here is a document: two rows of {config.sequence_length} tokens, one for each set, of {config.set_words:g} words"
            " on average; other sets and masks each time",
        ]

    # --- the network ---------------------------------------------------------------------------------------------------

    def random(self) -> PreTrainedModel:
        return network.random_network(encoder_config("bert", **self.shape()), self.config.initial)

    def loaded(self, init: Path) -> PreTrainedModel:
        model, self._new = network.load_network(model_folder(init))
        refuse_long_rows(model, self.config.sequence_length)
        return model

    @classmethod
    def settings_of(cls, init: Path, config: PropConfig) -> dict[str, Any]:
        found = super().settings_of(init, config)
        del found["architecture"]
        return found

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: TextConfig) -> TextStore:
        store = super().prepare(sources, out, data)
        warn_of_titles(sources, data)
        return store

    @classmethod
    def rows(cls, store: TextStore, config: PropConfig, split: Literal["train", "held_out"] = "train") -> PropRows:  # type: ignore[override]
        return prop_rows(store, config, split)

    def phases(self, total_steps: int) -> list[Phase]:
        """One. A part that has no loss stays as it began: no gradient reaches it, and no weight decay."""
        config = self.config
        fixed = () if config.mlm_weight and config.rop_weight else ("model.cls.predictions.",) if not config.mlm_weight else _OF_THE_SCORE
        return [Phase("train", trainable=None if not fixed else lambda name: not _among(name, fixed))]

    def rule(self, phase: str) -> MaskRule:
        """Of a document's words so many tokens; 80 % [MASK], 10 % random, 10 % as they are."""
        config = self.config
        most = max(1, min(config.most_masked, round(config.mask_ratio * config.sequence_length)))
        return MaskRule("whole-word", config.mask_ratio, 0.8, 0.1, most=most, whole=True)

    def predicted_per_row(self) -> float:
        """Of both rows; a word has about 1.3 tokens."""
        return 2 * self.rule("train").slots(self.config.sequence_length) / 1.3

    # --- from a document to a pair of rows -----------------------------------------------------------------------------

    def pairs(self, batch: Batch, ctx: Context) -> Pairs:
        """Draws two sets for each document, and lays each with the document into a row."""
        sets = self.sets.draw(ctx.rng, batch["words"], batch["counts"])
        words, differs = positive_first(sets)
        place = torch.arange(words.shape[2], device=words.device)
        words = torch.where(place < sets.lengths[:, None, None], words, self.sets.nothing).flatten(0, 1)  # [2 * batch, longest]
        documents, sizes = text_of(batch)
        room = self.config.sequence_length - 4  # a token of the document stays in any case
        rows = self.lay(*self.written(words, room), documents.repeat_interleave(2, 0), sizes.repeat_interleave(2, 0))
        counts = differs.float() if self.config.drop_ties else torch.ones_like(differs, dtype=torch.float32)
        return Pairs(rows, of_pairs(ctx), counts, sets)

    def written(self, words: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """(tokens int64 [rows, most], sizes int64 [rows, 1]) of sets, words one after another; what stands behind a size is not meant.

        Args:
            words: int64 [rows, longest], `nothing` where a set has no more.
        """
        begin, end = self.piece_ends[words], self.piece_ends[words + 1]
        upto = (end - begin).cumsum(1)  # [rows, longest]: tokens of the set up to each word
        place = torch.arange(most, device=words.device).repeat(len(words), 1)
        word = torch.searchsorted(upto, place, right=True).clamp(max=words.shape[1] - 1)
        at = begin.gather(1, word) + place - (upto - (end - begin)).gather(1, word)
        return self.pieces[at.clamp(0, max(0, len(self.pieces) - 1))], upto[:, -1:].clamp(max=most)

    def lay(self, first: Tensor, first_sizes: Tensor, second: Tensor, second_sizes: Tensor) -> Batch:
        """`[CLS] first [SEP] second [SEP]` and padding; segment 0 up to the first [SEP], then 1. The second alone is cut, to what the first leaves.

        Args:
            first, second: int64 [rows, ...] token ids; first_sizes, second_sizes: int64 [rows, 1], how many of them are meant.
        """
        length = self.config.sequence_length
        cls, sep, pad = (self.special_ids[name] for name in ("cls", "sep", "pad"))
        place = torch.arange(length, device=first.device).expand(len(first), length)
        kept = torch.minimum(second_sizes, length - 3 - first_sizes)  # [rows, 1]
        in_first, in_second = place - 1, place - 2 - first_sizes
        ids = first.gather(1, in_first.clamp(0, first.shape[1] - 1))
        ids = torch.where(in_second >= 0, second.gather(1, in_second.clamp(0, second.shape[1] - 1)), ids)
        ids = torch.where((in_second == -1) | (in_second == kept), sep, ids)
        ids = torch.where(in_second > kept, pad, ids)
        ids = torch.where(place == 0, cls, ids)
        mask = in_second <= kept
        return {"input_ids": ids, "token_type_ids": ((in_second >= 0) & mask).long(), "attention_mask": mask}

    def choose(self, batch: Batch, ctx: Context, rule: MaskRule | None = None) -> tuple[Tensor, Tensor]:
        """Of rows of pairs: whole words of the document alone. So many tokens as `mask_ratio` of its words are words (official code)."""
        if "token_type_ids" not in batch:  # a person's own text
            return super().choose(batch, ctx, rule)
        rule, ids = rule or self.rule(ctx.phase), batch["input_ids"]
        candidates = ~self.never_masked[ids] & (batch["token_type_ids"] == 1)
        groups = word_groups(ids, self.continues_word)
        first = torch.ones_like(candidates)
        first[:, 1:] = (groups[:, 1:] != groups[:, :-1]) | ~candidates[:, :-1]
        words = (candidates & first).sum(1)
        slots = rule.slots(self.config.sequence_length)
        return choose_groups(ctx.rng, groups, candidates, words, rule.ratio, slots, cut_last=False, cut_first=False)

    # --- the loss ------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """mlm_weight * L_MLM + rop_weight * L_ROP: means over the hidden tokens of all rows, and over the pairs that are not tied."""
        pairs = self.pairs(batch, ctx)
        positions, weights = self.choose(pairs.rows, pairs.inner)
        found = self.losses(pairs, self.hide(pairs.rows, pairs.inner, positions, weights), positions, weights)
        total: Tensor = torch.zeros((), device=weights.device)
        scalars = {}
        for name, weight, items in (("mlm_loss", self.config.mlm_weight, "hidden"), ("rop_loss", self.config.rop_weight, "pairs")):
            if weight:
                shared = found[name] * ctx.share(items)
                total = total + weight * shared
                scalars[name] = shared.detach()
        if self.config.rop_weight:
            scalars |= {"rop_accuracy": found["rop_accuracy"], "weight/rop_accuracy": pairs.counts.sum()}
        return {"loss": total, **scalars}

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        """The hidden tokens and the pairs that the two losses are means over."""
        pairs = self.pairs(batch, ctx)
        return {"hidden": self.choose(pairs.rows, pairs.inner)[1].sum(), "pairs": pairs.counts.sum()}

    def losses(self, pairs: Pairs, masked: Tensor, positions: Tensor, weights: Tensor, both: bool = False) -> dict[str, Tensor]:
        """mlm_loss; rop_loss and rop_accuracy: scalars, of those that have a weight, or of both."""
        hidden = encode(self.encoder, {**pairs.rows, "input_ids": masked})
        found = {}
        if both or self.config.mlm_weight:
            before, output = mlm_head(self.model)
            targets = pairs.rows["input_ids"].gather(1, positions)
            found["mlm_loss"] = projected_lm_loss(before(gather_positions(hidden, positions)), output.weight, output.bias, targets, weights)
        if both or self.config.rop_weight:
            scores, counted = self.model.score(hidden), pairs.counts.sum().clamp(min=1)
            found["rop_loss"] = (pair_losses(scores, self.config.rop_loss) * pairs.counts).sum() / counted
            found["rop_accuracy"] = (pair_accuracies(scores.detach()) * pairs.counts).sum() / counted
        return found

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Of held-out documents: the share of their pairs that the scores order rightly, and the loss with every chosen token shown as [MASK]."""
        pairs = self.pairs(batch, ctx)
        positions, weights = self.choose(pairs.rows, pairs.inner)
        found = self.losses(pairs, self.hide_all(pairs.rows, pairs.inner, positions, weights), positions, weights, both=True)
        counted, hidden = pairs.counts.sum(), weights.sum()
        items = {"mlm_loss": hidden, "rop_loss": counted, "rop_accuracy": counted}
        return found | {f"weight/{name}": value for name, value in items.items()}

    def observe(self, scalars: Any) -> None:
        if "rop_accuracy" in scalars:
            self.accuracy.lerp_(scalars["rop_accuracy"].detach().to(self.accuracy.dtype), 1 - REMEMBERED)

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        pairs = self.pairs(batch, ctx)
        return super().predictions(pairs.rows, pairs.inner, one)

    # --- looking at it -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """Of each document its two sets, the likelier one first, with the network's scores; of a person's own text the guesses for hidden words."""
        if own_text or "words" not in batch:
            return super().show(batch, ctx, own_text)
        ctx = replace(ctx, rng=Rng(ctx.rng.key, ctx.rng.rows[: len(batch["input_ids"])]))
        pairs = self.pairs(batch, ctx)
        scores = self.model.score(encode(self.encoder, pairs.rows)).view(-1, 2).tolist()
        lines = []
        for number, (better, worse) in enumerate(scores):
            texts = [self._parts(pairs.rows, 2 * number + i) for i in (0, 1)]
            sign = ">" if better > worse else "<" if better < worse else "="
            document = " ".join(texts[0][1].split()[:SHOWN_WORDS])
            lines.append(f"[{texts[0][0]}] {better:.2f} {sign} {worse:.2f} [{texts[1][0]}] of: {document} ...")
        return lines

    def _parts(self, rows: Batch, number: int) -> tuple[str, str]:
        """(set, document) of a row as text."""
        ids, kind = rows["input_ids"][number], rows["token_type_ids"][number]
        first, second = (ids[rows["attention_mask"][number] & (kind == i)].tolist() for i in (0, 1))
        return self.tokenizer.decode(first, skip_special_tokens=True), self.tokenizer.decode(second, skip_special_tokens=True)

    def plan_lines(self) -> list[str]:
        new = [f"  new        the model of --init has no {' and no '.join(self._new)}: new ones begin random"] if self._new else []
        return [*self._said, *new]

    def warnings(self) -> list[str]:
        if self.config.rop_weight and float(self.accuracy) < NOT_LEARNT:
            what = f"Of the last pairs {float(self.accuracy):.0%} are ordered rightly, which is chance: matching was not learnt."
            return [f"{what} Give more steps; it comes suddenly, after a plateau at a loss of 1."]
        return []

    def export(self, folder: Path) -> None:
        """BertForSequenceClassification with one label, and the head of masked language modelling beside it (`network.save_network`)."""
        network.save_network(self.model, self.tokenizer, folder)


def warn_of_titles(sources: Sequence[str | Path], data: TextConfig) -> None:
    """Says it where the first record of a .jsonl has a title beside its text: the paper's documents begin with theirs."""
    for source in sources:
        path = Path(source)
        if suffix_of(path) in (".jsonl", ".ndjson") and path.is_file():
            with suppress(OSError, ValueError, pa.ArrowException), pa.input_stream(str(path)) as file:
                record = json.loads(file.read(LOOKED_AT).split(b"\n")[0])
                if isinstance(record, dict) and record.get("title") and data.text_field != "title":
                    logger.warning("%s: the field 'title' is not read: write it in front of the text, 'title. text'", path)


_OF_THE_SCORE = ("model.cls.weight", "model.cls.bias", "model.bert.pooler.")


def _among(name: str, parts: tuple[str, ...]) -> bool:
    return name.startswith(parts)


METHOD = Prop
