"""How text files become a token store. The flags are `--text.NAME`; the resolved values are in the store's manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.core.errors import UsageError

TokenizerKind = Literal["wordpiece", "bpe", "unigram"]
DocumentSplit = Literal["auto", "file", "blank-line", "line"]
SentenceSplit = Literal["line", "rules"]
Vocabulary = Literal["plain", "amplified"]


@dataclass
class TextConfig:
    """Preparation of text. Two runs with equal values and equal files write equal bytes."""

    text_field: str = "text"
    """Field of .jsonl records, column of .csv, .tsv and .parquet files, that holds the text, or a list of texts (null where an image stands) that are
    joined. Left at its default, the lists of interleaved documents are found too: text_list, texts."""

    document_split: DocumentSplit = "auto"
    """Where a document ends in .txt files. auto: at blank lines if the first MiB has blocks of several lines between blank lines, else one document
    a file. .md and .rst files are one document each, records of other formats too."""

    sentence_split: SentenceSplit = "line"
    """Where a sentence ends. line: where a line does; rules: within lines too, after . ! or ? before a capital, but not after an abbreviation."""

    tokenizer: str | None = None
    """A tokenizer to take as it is: a tokenizer.json, a vocab.txt (WordPiece) or a folder of transformers. None: train one on the corpus."""

    tokenizer_kind: TokenizerKind = "wordpiece"
    """What to train. bpe is byte-level (GPT-2's form) unless byte_fallback is off."""

    vocab_size: int = 4096
    """Vocabulary to train, special tokens included. A small corpus may give fewer."""

    vocabulary: Vocabulary = "plain"
    """What to train it on. plain: on each text once; amplified: on the first entry of --data so many times that it weighs as much as the others
    together, so that its words stay whole (medical_bert)."""

    lowercase: bool | None = None
    """Fold case. None: yes for wordpiece (uncased BERT), no for bpe and unigram."""

    strip_accents: bool | None = None
    """Remove accents. None: as lowercase."""

    byte_fallback: bool | None = None
    """Unknown characters become bytes, so nothing is unknown. None: yes for bpe, no otherwise. wordpiece cannot."""

    tokenizer_sample_mb: float = 32.0
    """Train the tokenizer on about this much text (MB), drawn by document hash over the whole corpus. Held-out documents are never used."""

    held_out_share: float = 0.02
    """Share of documents, chosen by the hash of their text, kept for validation. 0: none."""

    near_duplicate_share: float = 0.5
    """A training document is dropped if this share of its 8-token spans is found in held-out documents, or of a held-out document's spans in it."""

    on_bad_input: Literal["stop", "quarantine"] = "stop"
    """stop: the first bad record ends the preparation. quarantine: write it to quarantine.jsonl and go on."""

    max_bad_share: float = 0.05
    """With quarantine: stop after all when more than this share of the records is bad."""

    max_document_mb: float | None = None
    """Largest document (MB of UTF-8). None: a tenth of this machine's memory."""

    workers: int | None = None
    """Threads that tokenise. None: one a core. Does not change the result."""

    def __post_init__(self) -> None:
        require(1 <= self.vocab_size <= 2**22, f"--text.vocab-size is {self.vocab_size}.", "Give at least 300, at most 4 million.")
        require(0 <= self.held_out_share < 1, f"--text.held-out-share is {self.held_out_share}.", "Give a share from 0 up to, not including, 1.")
        near = self.near_duplicate_share
        require(0 < near <= 1, f"--text.near-duplicate-share is {near}.", "Give a share above 0, at most 1.")
        require(0 <= self.max_bad_share <= 1, f"--text.max-bad-share is {self.max_bad_share}.", "Give a share from 0 to 1.")
        require(self.workers is None or self.workers >= 1, f"--text.workers is {self.workers}.", "Give at least 1.")
        size = self.max_document_mb
        require(size is None or 0 < size <= 1e6, f"--text.max-document-mb is {size}.", "Give a size above 0, at most 1,000,000.")
        require(self.tokenizer_sample_mb > 0, f"--text.tokenizer-sample-mb is {self.tokenizer_sample_mb}.", "Give a positive size.")
        require(
            not (self.tokenizer is None and self.tokenizer_kind == "wordpiece" and self.byte_fallback),
            "wordpiece has no byte fallback.",
            "Leave --text.byte-fallback out, or use --text.tokenizer-kind bpe or unigram.",
        )

    @property
    def folds_case(self) -> bool:
        return self.tokenizer_kind == "wordpiece" if self.lowercase is None else self.lowercase

    @property
    def strips_accents(self) -> bool:
        return self.folds_case if self.strip_accents is None else self.strip_accents

    @property
    def falls_back_to_bytes(self) -> bool:
        return self.tokenizer_kind == "bpe" if self.byte_fallback is None else self.byte_fallback

    def preparation(self) -> dict[str, Any]:
        """The fields that decide the bytes of the store, resolved. What only decides how it is made (workers, limits) is left out."""
        fields = asdict(self)
        fields |= {"lowercase": self.folds_case, "strip_accents": self.strips_accents, "byte_fallback": self.falls_back_to_bytes}
        for name in ("workers", "max_document_mb", "on_bad_input", "max_bad_share"):
            del fields[name]
        for name, usual in (("sentence_split", "line"), ("vocabulary", "plain")):  # stores of earlier versions say nothing of them
            if fields[name] == usual:
                del fields[name]
        if self.tokenizer is not None:  # a tokenizer that is taken is compared by its hash, and brings these with it
            for name in ("tokenizer", "tokenizer_kind", "vocab_size", "vocabulary", "byte_fallback", "tokenizer_sample_mb"):
                fields.pop(name, None)
            if Path(self.tokenizer).suffix != ".txt":  # a vocab.txt says nothing about case
                del fields["lowercase"], fields["strip_accents"]
        return fields


def require(holds: bool, what: str, mend: str) -> None:
    if not holds:
        raise UsageError(what, mend)
