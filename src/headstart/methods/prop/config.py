"""Settings and presets of prop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.core.bounds import ABOVE_0, COUNT, COUNT_FROM_0, FROM_0, SHARE, SHARE_ABOVE_0, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_network

Background = Literal["df", "ctf"]
Initial = Literal["bert", "matching"]
PairLoss = Literal["softmax_hinge", "hinge", "logistic"]
MOST_WORDS = 50
BOUNDS = {
    "set_words": Bounds(0, MOST_WORDS, f"Give the words of a query on average, above 0 and at most {MOST_WORDS}; the paper: 3.", above=True),
    "set_vocabulary": COUNT,
    "least_count": COUNT,
    "subsampling": ABOVE_0,
    "short_doc_tokens": COUNT_FROM_0,
    "short_doc_skip": SHARE,
    "min_doc_words": COUNT,
    "mask_ratio": SHARE_ABOVE_0,
    "most_masked": COUNT,
    "rop_weight": FROM_0,
    "mlm_weight": FROM_0,
}
LEAST_LENGTH = 16
"""Tokens of a row: a set of some words, and more of the document than one of them."""


@dataclass
class PropConfig:
    """Which sets of words are drawn, what of the document is hidden, and the network."""

    set_words: float = 3.0
    """lambda: mean of the Poisson that the length of a set is drawn from (0 is drawn anew). Meant to be the words of your users' queries on
    average."""
    set_vocabulary: int = 500
    """K: words that a set is drawn from: those of the document, filled up with words that it lacks; 100 more for a document with K of its own."""
    background: Background = "df"
    """p(w|C). df: documents with the word / sum of that over all words (official code); ctf: its count / all words (the paper's formula)."""
    least_count: int = 10
    """Words that are rarer in the corpus are never drawn. What they would have of p(w|C) is missing from it, not given to others."""
    subsampling: float = 1e-4
    """t: a drawn word of frequency f is kept with probability sqrt(t/f) + t/f, at most 1."""
    drop_ties: bool = True
    """A pair of sets with the same score teaches nothing. False: the second counts as the likelier one (official code)."""
    short_doc_tokens: int = 100
    """A document with fewer tokens is short."""
    short_doc_skip: float = 0.8
    """Short documents come so much more seldom: at 0.8 once for every five times of a long one. Where all are short it has no effect."""
    min_doc_words: int = 10
    """A document with fewer words, without stop words, is left out."""
    word_pattern: Literal["unicode", "ascii"] = "unicode"
    """What a word is: a run of letters of any script, or of a to z (paper), which cuts words at accents."""
    stopwords: str = "english"
    """Words that no set has: english (475: INQUERY's and NLTK's), none, or a file with a word a line."""
    statistics: str | None = None
    """A table (.csv, .tsv, .jsonl, .parquet) with word, df and, if known, ctf, that p(w|C) is taken from: of the language, where the corpus is small.
    None: the training documents."""
    rop_loss: PairLoss = "softmax_hinge"
    """On the two scores of a pair. softmax_hinge: 1 - (p+ - p-) after a softmax over them (official code); hinge: margin 1 on scores; logistic."""
    rop_weight: float = 1.0
    """Of the loss on pairs. 0: masked language modelling alone, on the same rows."""
    mlm_weight: float = 1.0
    """Of the loss on hidden words. 0: representative words prediction alone."""
    mask_ratio: float = 0.15
    """Share of the document's words; so many tokens are hidden, whole words (official code)."""
    most_masked: int = 60
    """Tokens of a row that are hidden, at most."""
    hidden_size: int = 64
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads."""
    intermediate_size: int = 256
    """Width of the MLP."""
    initial: Initial = "bert"
    """Random weights. bert: all N(0, 0.02), from which a narrow network does not learn in some thousand steps to look a word up; matching: wider ones
    for narrow networks, keys that begin as the queries, so that equal tokens look at each other (Trockman and Kolter 2023), and small positions."""
    sequence_length: int = 80
    """Tokens of a row: [CLS] set [SEP] document [SEP]; only the document is cut. A pair is two of them."""
    dropout: float = 0.0
    """BERT: 0.1."""

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        self.check_own()
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, self.dropout, self.sequence_length)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside(self, BOUNDS, "method.")
        if not self.rop_weight and not self.mlm_weight:
            raise UsageError("--method.rop-weight and --method.mlm-weight are both 0.", "Leave one of them as it is: nothing would be learned.")
        if self.sequence_length < LEAST_LENGTH:
            what = f"--method.sequence-length is {self.sequence_length}: a set of words and some of the document must fit."
            raise UsageError(what, f"Give at least {LEAST_LENGTH}.")


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        PropConfig(least_count=2, initial="matching"),
        batch=32,
        optimizer={"learning_rate": 1e-3},
        schedule={"name": "linear", "warmup_share": 0.1},
        data={"vocab_size": 4000},
    ),
    "small": Preset(
        PropConfig(
            least_count=2, initial="matching", hidden_size=256, num_layers=4, num_heads=4, intermediate_size=1024, sequence_length=192
        ),
        batch=64,
        optimizer={"learning_rate": 3e-4},
        schedule={"name": "linear", "warmup_share": 0.1},
        data={"vocab_size": 8000},
    ),
    "base": Preset(  # from bert-base-uncased: --init
        PropConfig(hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, sequence_length=512, dropout=0.1),
        batch=64,
        optimizer={"learning_rate": 2e-5, "epsilon": 1e-6},
        schedule={"name": "linear", "warmup_share": 0.1},
        data={"vocab_size": 30522},
        steps=100_000,
    ),
}
"""The batch counts pairs, two rows each."""

SETTINGS = Settings(catalog.card("prop"), PropConfig, PRESETS)
