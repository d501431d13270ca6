"""Epochs that are drawn (`--epochs.tokens`): from the parts of --data and the shares of --mix to an order of windows."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from headstart.core.errors import UsageError
from headstart.engine.method import Method
from headstart.verbs._parts import mix_of

if TYPE_CHECKING:
    from headstart.data.text.epochs import Epochs
    from headstart.verbs._corpus import Corpus
    from headstart.verbs.config import PretrainConfig


class WholeText:
    """The training documents of a store before anything is drawn of them: what the plan says of them. No window of them is written.

    Attributes:
        length, n_tokens, n_documents, report: as of rows.
    """

    def __init__(self, store: Any, length: int) -> None:
        self.store, self.length = store, length
        documents = store.documents("train")
        self.n_documents = len(documents)
        self.n_tokens = int((store.document_offsets[documents + 1] - store.document_offsets[documents]).sum()) + len(documents)
        self.report: dict[str, float] = {}

    def __len__(self) -> int:
        return self.n_tokens // self.length


def epoch_rows(method: type[Method], store: Any, config: PretrainConfig) -> WholeText:
    """What stands for the training rows of a store.

    Raises:
        UsageError: the method does not cut a stream into windows.
    """
    if getattr(config.method, "packing", None) != "stream":
        mend = "Add --method.packing stream (causal-lm)."
        raise UsageError(f"--epochs.tokens draws documents and cuts their stream into windows; {method.card.slug} does not here.", mend)
    return WholeText(store, config.method.sequence_length)


def epoch_mixture(corpus: Corpus, config: PretrainConfig, method: Method) -> Epochs:
    """The endless order of windows.

    Raises:
        UsageError: an intervention needs rows that stay the same, the budget is less than an epoch, or a part has less text than its share.
    """
    from headstart.data.text.epochs import Epochs, Source
    from headstart.engine.text_method import special

    assert config.epochs.tokens is not None
    if method.training_rows(corpus.train) != corpus.train:
        what = "--epochs.tokens makes other rows each epoch, and an intervention of this run keeps figures of each row."
        raise UsageError(what, "Leave one of them out.")
    length, budget, wanted = config.method.sequence_length, config.budget, config.epochs.tokens
    seen = budget.tokens if budget.steps is None else budget.steps * config.global_batch * length
    if seen is not None and seen < wanted and not config.smoke:
        raise UsageError(f"The budget of {seen:,} tokens is less than one epoch of {wanted:,}.", "Raise the budget, or lower --epochs.tokens.")
    names = corpus.names or [store.folder.name for store in corpus.stores]
    sources = [Source.of(store, share, name) for store, share, name in zip(corpus.stores, shares_of(corpus, config), names, strict=True)]
    if config.smoke:  # 64 records may be less than an epoch
        wanted = max(1, min([wanted, *(int(source.n_tokens / source.share) for source in sources if source.share)]))
    return Epochs(sources, wanted, config.epochs.draw, config.seed, length, special(corpus.store, "eos")[0])


def shares_of(corpus: Corpus, config: PretrainConfig) -> list[Fraction]:
    """Of each store in the tokens of an epoch, exactly 1 in all.

    Raises:
        UsageError: weights that count no tokens.
    """
    if (named := mix_of(config.mix)) is not None:
        given = [Fraction(str(named[name])) for name in corpus.names]
    elif config.mixture.weights:
        if config.mixture.by != "tokens":
            raise UsageError(f"--mixture.by {config.mixture.by}: epochs are drawn by tokens.", "Leave it out.")
        given = [Fraction(str(weight)) for weight in config.mixture.weights]
    else:
        given = [Fraction(part.n_tokens) for part in corpus.train]
    return [share / sum(given) for share in given]


def plan_lines(epochs: Epochs, tokens: int) -> Iterator[str]:
    """What the plan says of epochs in a run of so many tokens."""
    again = "drawn anew each time" if epochs.kind == "dynamic" else "the same documents each time"
    yield f"  epochs     {tokens / epochs.tokens:.2f} of {epochs.tokens:,} tokens, {again}"
    for source, quota, drawn in zip(epochs.sources, epochs.quotas, epochs.draws(0), strict=True):
        if quota:
            times = f"each document about {tokens / epochs.tokens * quota / source.n_tokens:.2g} times"
            if epochs.kind == "fixed":
                times = f"each drawn document {tokens / epochs.tokens:.2g} times"
            whole = f"its {source.n_tokens:,} tokens ({len(source.lengths):,} documents)"
            yield f"             {source.name}: {float(source.share):.1%}, {quota:,} tokens ({len(drawn):,} documents) of {whole}; {times}"
