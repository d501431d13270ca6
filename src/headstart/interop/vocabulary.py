"""The tokenizer of an official checkpoint, from files beside it: a tokenizer.json, BERT's vocab.txt, GPT-2's vocab.json and merges.txt."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, read_bounded
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import MAX_TOKENIZER_BYTES, SPECIAL_TOKENS, check_tokenizer, library_errors, load_tokenizer
from headstart.interop.model_folder import check_tokenizer_config, refuse_strange_entries
from headstart.interop.transformers_io import quiet

NAMES = ("tokenizer.json", "vocab.txt", "vocab.json")
MERGES = "merges.txt"
_END = "<|endoftext|>"


def find_tokenizer(given: Path | None, beside: Path) -> tuple[Tokenizer | PreTrainedTokenizerFast, str]:
    """(the tokenizer, what it was read from, in words without a path: they are published).

    Args:
        given: a file or a folder; None: what lies in `beside`.

    Raises:
        UsageError: nothing is given, and there is none beside. BadInput: it cannot be read.
    """
    place = given or beside
    if place.is_dir():
        refuse_strange_entries(place)
        names = [name for name in NAMES if (place / name).is_file()]
        if not names:
            mend = "Give --tokenizer: the one that the network was trained with."
            raise UsageError(f"{place} holds no tokenizer (one of {', '.join(NAMES)}).", mend)
        if names[0] == "tokenizer.json" and (place / "tokenizer_config.json").is_file():
            return _of_transformers(place), f"that of {place.absolute().name}"
        place = own_file(place, names[0])
    if not place.is_file():
        raise BadInput("there is no such file or folder.", "Give a tokenizer.json, a vocab.txt, or a folder that holds one.", file=place)
    if place.suffix == ".txt":
        return _of_words(place)
    return (_of_gpt2(place) if place.name == "vocab.json" else load_tokenizer(place, TextConfig())[0]), place.name


def _of_transformers(folder: Path) -> PreTrainedTokenizerFast:
    check_tokenizer_config(folder)
    load_tokenizer(folder / "tokenizer.json", TextConfig())  # refuses what would take memory or time without end
    with quiet(), library_errors("has a tokenizer that cannot be read", folder):
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not isinstance(found, PreTrainedTokenizerFast):
        raise BadInput(f"has a slow tokenizer, {type(found).__name__}.", "Convert it to a tokenizer.json with transformers.", file=folder)
    return found


def _of_words(path: Path) -> tuple[Tokenizer, str]:
    """BERT's. A list of words says nothing of case and accents; the words do: where folding would make one unreachable, nothing was folded."""
    lines = read_bounded(path, MAX_TOKENIZER_BYTES, "vocabulary").decode(errors="replace").splitlines()
    words = [line for line in lines if line[:1] not in ("[", "<")]
    lowercase, strips = not _changes(words, str.lower), not _changes(words, _without_accents)
    tokenizer, _ = load_tokenizer(path, TextConfig(lowercase=lowercase, strip_accents=strips))
    if missing := [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]:
        raise BadInput(f"lacks {missing[0]}.", "Give the vocabulary that the network was trained with.", file=path)
    return tokenizer, f"{path.name} ({'lower case' if lowercase else 'with case'}, {'without' if strips else 'with'} accents, as its words are)"


def _changes(words: Iterable[str], fold: Callable[[str], str]) -> bool:
    return any(fold(word) != word for word in words)


def _without_accents(word: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFD", word) if unicodedata.category(character) != "Mn")


def _of_gpt2(path: Path) -> Tokenizer:
    """Byte-level BPE: pieces and the order in which they are joined."""
    merges = own_file(path.parent, MERGES)
    try:
        pieces = json.loads(read_bounded(path, MAX_TOKENIZER_BYTES, "vocabulary"))
        lines = read_bounded(merges, MAX_TOKENIZER_BYTES, "list of merges").decode().splitlines()
        pairs = [(left, right) for left, right in (line.split(" ") for line in lines if line and not line.startswith("#version"))]
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is no vocabulary of GPT-2 ({error}).", "Give its vocab.json and merges.txt.", file=path) from None
    with library_errors("is no vocabulary of GPT-2", path):
        tokenizer = Tokenizer(models.BPE(pieces, pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # GPT-2 puts nothing before a text
        if tokenizer.token_to_id(_END) is not None:
            tokenizer.add_special_tokens([_END])
    check_tokenizer(tokenizer, path)
    return tokenizer
