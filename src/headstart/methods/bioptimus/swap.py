"""Another vocabulary for a trained masked language model: shared tokens keep their rows, new ones begin with what `new_rows` says."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedModel

from headstart.backbones.text import mlm_head, word_embeddings
from headstart.core.errors import BadInput, UsageError
from headstart.data.text.store import TextStore
from headstart.data.text.tokenizer import continues_word, described, plain, special_ids
from headstart.methods.bioptimus.config import BioptimusConfig
from headstart.methods.bioptimus.contexts import count_tokens
from headstart.methods.bioptimus.distil import Reading, contextual_vectors, first_by_hash, matched

FEW_SHARED, MANY_SHARED = 0.1, 0.95
MANY_CAPITALS = 0.1
"""Tokens with capitals in a vocabulary that folds case, at most: text never gives them."""
DEVIATION = 0.02
"""Of BERT's random rows."""
SPECIALS = ("pad", "unk", "cls", "sep", "mask")


@dataclass(frozen=True)
class Split:
    """The new vocabulary against the old one; tokens are compared as strings, never by number."""

    shared: np.ndarray
    """int64 [shared], numbers in the new vocabulary, ascending."""
    shared_old: np.ndarray
    """int64 [shared], their numbers in the old one."""
    new: np.ndarray
    """int64 [new], tokens that the old one lacks, ascending."""


@dataclass(frozen=True)
class Swapped:
    """A network with the new vocabulary."""

    model: PreTrainedModel
    listing: str
    """A line a new token: token, contexts, how its row was made. new_tokens.tsv of an export."""
    flops: int
    lines: list[str]
    """What a person should know, for the plan."""


def split_vocabulary(new: Tokenizer, old: Tokenizer) -> Split:
    ids, before = new.get_vocab(with_added_tokens=True), old.get_vocab(with_added_tokens=True)
    shared = sorted(index for token, index in ids.items() if token in before)
    names = {index: token for token, index in ids.items()}
    return Split(
        np.array(shared, np.int64),
        np.array([before[names[index]] for index in shared], np.int64),
        np.array(sorted(index for token, index in ids.items() if token not in before), np.int64),
    )


def refuse_swap(new: Tokenizer, old: Tokenizer, folder: Path) -> None:
    """Refuses two vocabularies between which nothing can be carried over, or nothing need be. The old one with tokens added is never too little:
    a person asks for just these.

    Raises:
        UsageError: another kind, case or language; or next to nothing new.
    """
    if new.get_vocab(with_added_tokens=True) == old.get_vocab(with_added_tokens=True):
        return
    for whose, tokenizer in (("The tokenizer of the data", new), (f"The tokenizer of {folder}", old)):
        if not isinstance(tokenizer.model, models.WordPiece):
            what = f"{whose} is {type(tokenizer.model).__name__}; tokens are carried over between WordPiece vocabularies alone."
            raise UsageError(what, "Give a BERT as --init, and leave --text.tokenizer-kind out.")
        if blank := [
            (token, index) for token, index in tokenizer.get_vocab(with_added_tokens=True).items() if not token or any(map(str.isspace, token))
        ]:
            token, index = min(blank)
            what = f"{whose} has the token {token!r}, which no word is (line {index + 1:,} of its vocab.txt)."
            raise UsageError(what, "Give a vocabulary whose tokens have no blanks.")
        if missing := [role for role in SPECIALS if role not in special_ids(tokenizer)]:
            raise UsageError(f"{whose} has no [{missing[0].upper()}].", "Give a vocabulary with [PAD], [UNK], [CLS], [SEP] and [MASK].")
    split = split_vocabulary(new, old)
    total = len(split.shared) + len(split.new)
    counted = f"{len(split.shared):,} of its {total:,} tokens are in the old one"
    case = {name: (described(new)[name], described(old)[name]) for name in ("lowercase", "strip_accents")}
    if strange := [name for name, (mine, theirs) in case.items() if mine != theirs]:
        mine, theirs = case[strange[0]]
        flag = f"--text.{strange[0].replace('_', '-')}"
        raise UsageError(f"The new vocabulary has {strange[0]} {mine}, the old one {theirs}; {counted}.", f"Give {flag} {theirs}.")
    cases = (
        ("new", new, "Is it one of a cased model? Give one of the same case as the model of --init."),
        ("old", old, f"Is the model a cased one? Give {folder} its tokenizer.json, which says so; a vocab.txt does not."),
    )
    for whose, tokenizer, mend in cases:
        own = set(special_ids(tokenizer).values())
        capitals = sum(token != token.lower() for token, index in tokenizer.get_vocab().items() if index not in own)
        if described(tokenizer)["lowercase"] and capitals > MANY_CAPITALS * tokenizer.get_vocab_size():
            what = f"The {whose} vocabulary folds case, but {capitals:,} of its tokens have capitals, which no text then gives; {counted}."
            raise UsageError(what, f"One of the two is cased. {mend}")
    if len(split.shared) < FEW_SHARED * total:
        raise UsageError(f"The new vocabulary is too strange: {counted}.", "Is it of another language or case? Then train from random weights.")
    added = len(split.new) and len(split.shared) == old.get_vocab_size(with_added_tokens=True)
    if len(split.shared) > MANY_SHARED * total and not added:
        mend = f"Leave the vocabulary as it is: `headstart pretrain mlm --data my/texts --init {folder}`."
        raise UsageError(f"Nothing is to be carried over: {counted}.", mend)


def swapped(model: PreTrainedModel, folder: Path, old: Tokenizer, store: TextStore, config: BioptimusConfig) -> Swapped:
    """The model with the vocabulary of the store. Whatever is no row of the table, and no bias of the output, stays as it is, bit for bit.

    Raises:
        UsageError: rows cannot be made as asked. BadInput: the corpus shows no new token.
    """
    table = word_embeddings(model).weight.detach()  # [old vocab, dim]
    split = split_vocabulary(store.tokenizer, old)
    names = {index: token for token, index in store.tokenizer.get_vocab(with_added_tokens=True).items()}
    rows = torch.empty(store.vocab_size, table.shape[1]).normal_(0.0, DEVIATION)
    rows[torch.from_numpy(split.shared)] = table[torch.from_numpy(split.shared_old)]
    made, contexts, flops = ["random"] * len(split.new), np.zeros(len(split.new), np.int64), 0
    new = torch.from_numpy(split.new)
    if config.new_rows == "mean":
        rows[new], made = table.mean(0), ["mean"] * len(new)
    elif config.new_rows != "random":
        rows[new], made = static_rows(table, split, old, [names[index] for index in split.new.tolist()], store)
    if config.new_rows == "contextual":
        found, contexts, flops = contextual_rows(model, folder, old, store, table, split, names, config)
        seen = torch.from_numpy(contexts > 0)
        rows[new[seen]] = found[seen]
        made = ["contextual" if count else how for how, count in zip(made, contexts.tolist(), strict=True)]
    bias = new_bias(model, split, store, config)
    listing = "token\tcontexts\trow\n" + "".join(
        f"{names[index]}\t{count}\t{how}\n" for index, count, how in zip(split.new.tolist(), contexts.tolist(), made, strict=True)
    )
    lines = [f"  vocabulary {len(split.shared):,} tokens keep their rows, {len(split.new):,} are new: {told(made)}"]
    if mlm_head(model)[1].weight is not word_embeddings(model).weight:
        lines.append("  output     its own rows are left: the output takes those of the words, to which it is tied from here on")
    if flops:
        lines.append(f"  new rows   read from {int(contexts.sum()):,} contexts for {flops:.3g} FLOPs, which the budget pays for")
    return Swapped(with_table(model, rows, bias, store), listing, flops, lines)


def told(made: list[str]) -> str:
    """How many rows were made in which way."""
    return ", ".join(f"{made.count(how):,} {how}" for how in dict.fromkeys(made)) or "none"


def contextual_rows(
    model: PreTrainedModel,
    folder: Path,
    old: Tokenizer,
    store: TextStore,
    table: Tensor,
    split: Split,
    names: dict[int, str],
    config: BioptimusConfig,
) -> tuple[Tensor, np.ndarray, int]:
    """(rows [new, dim], contexts of each, FLOPs)."""
    width = model.config.hidden_size
    if width != table.shape[1]:
        what = f"The rows of {folder} have {table.shape[1]} numbers, its hidden states {width}: one cannot stand for the other."
        raise UsageError(what, "Give --method.new-rows subword-mean.")
    refuse_layer(config.layer, model.config.num_hidden_layers)
    counts = count_tokens(store)
    usual = [index for index in split.shared.tolist() if counts[index] and index not in set(store.special_ids.values())]
    chosen = np.array([usual[i] for i in first_by_hash([names[index] for index in usual])], np.int64) if config.match_norm else np.zeros(0, np.int64)
    roles = special_ids(old)
    tokens = np.sort(np.concatenate([split.new, chosen]))
    reading = Reading(config.layer, config.pieces, config.contexts, min(config.context_tokens, positions_of(model)))
    vectors = contextual_vectors(model, folder, old, (roles["cls"], roles["sep"], roles["unk"]), store, tokens, reading)
    mine = torch.from_numpy(np.searchsorted(tokens, split.new))
    rows, contexts = vectors.mean[mine], vectors.found[mine].numpy()
    if not contexts.any():
        raise BadInput("shows none of the new tokens in a sentence that the model can read.", "Give text of the domain.", file=store.folder)
    if config.match_norm:
        at = torch.from_numpy(np.searchsorted(tokens, chosen))
        seen = vectors.found[at] > 0
        if int(seen.sum()) < 2:
            raise BadInput("shows fewer than two shared tokens: there is nothing to match.", "Give --method.no-match-norm.", file=store.folder)
        before = np.searchsorted(split.shared, chosen)
        rows = matched(rows, vectors.mean[at][seen], table[torch.from_numpy(split.shared_old[before])][seen])
    return rows, contexts, vectors.flops


def refuse_layer(layer: int | None, layers: int) -> None:
    if layer is not None and layer > layers:
        raise UsageError(f"--method.layer is {layer}, the model has {layers} layers.", f"Give 0 to {layers}.")


def positions_of(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "max_position_embeddings", 512))


def static_rows(table: Tensor, split: Split, old: Tokenizer, names: list[str], store: TextStore) -> tuple[Tensor, list[str]]:
    """The mean of the old rows of each new token's pieces; where the old vocabulary cannot write it, a draw around the shared rows."""
    vocabulary = old.get_vocab(with_added_tokens=True)
    shared = table[torch.from_numpy(split.shared_old)]
    mean, spread = shared.mean(0), shared.std(0, correction=0)
    continues = continues_word(store.tokenizer)
    rows, made = torch.empty(len(names), table.shape[1]), []
    for i, (index, name) in enumerate(zip(split.new.tolist(), names, strict=True)):
        pieces = pieces_of(plain(name, bool(continues[index])), bool(continues[index]), vocabulary)
        rows[i] = table[pieces].mean(0) if pieces else torch.normal(mean, spread)
        made.append("subword-mean" if pieces else "unknown")
    return rows, made


def pieces_of(text: str, continues: bool, vocabulary: dict[str, int]) -> list[int]:
    """WordPiece's greedy longest match, of the inside of a word too: given to a tokenizer as text, "##idine" would be "#", "#", "id", "##ine".
    Empty where it has no pieces."""
    found, start = [], 0
    while start < len(text):
        mark = "##" if start or continues else ""
        stop = next((stop for stop in range(len(text), start, -1) if mark + text[start:stop] in vocabulary), None)
        if stop is None:
            return []
        found.append(vocabulary[mark + text[start:stop]])
        start = stop
    return found


def new_bias(model: PreTrainedModel, split: Split, store: TextStore, config: BioptimusConfig) -> Tensor:
    """[new vocab]: the output's bias."""
    before = mlm_head(model)[1].bias.detach()
    bias = torch.zeros(store.vocab_size)
    bias[torch.from_numpy(split.shared)] = before[torch.from_numpy(split.shared_old)]
    if config.new_bias == "count" and len(split.new):
        counted = torch.log(torch.from_numpy(count_tokens(store)[split.new]).float() + 1)
        bias[torch.from_numpy(split.new)] = counted - counted.mean() + before.mean()
    return bias


def with_table(model: PreTrainedModel, rows: Tensor, bias: Tensor, store: TextStore) -> PreTrainedModel:
    """A network like the model with another table of words, to which its output is tied."""
    config: Any = copy.deepcopy(model.config)
    config.vocab_size = len(rows)
    for role, name in (("pad", "pad_token_id"), ("cls", "cls_token_id"), ("sep", "sep_token_id"), ("bos", "bos_token_id"), ("eos", "eos_token_id")):
        if getattr(config, name, None) is not None:
            setattr(config, name, store.special_ids.get(role))
    config.tie_word_embeddings = True
    made: Any = type(model)
    changed: PreTrainedModel = made(config)
    table, output = word_embeddings(changed).weight, mlm_head(changed)[1]
    replaced = {id(table), id(output.weight), id(output.bias)}
    given: dict[str, Tensor] = dict(model.named_parameters())
    given |= {name: value for name, value in model.named_buffers() if "position_ids" in name or "token_type_ids" in name}
    with torch.no_grad():
        for name, value in [*changed.named_parameters(), *changed.named_buffers()]:
            if name in given and id(value) not in replaced:
                value.copy_(given[name])
        table.copy_(rows)
        output.bias.copy_(bias)
    changed.tie_weights()
    return changed.train(model.training)
