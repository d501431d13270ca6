"""Folders of the transformers library: what we write loads with `AutoModel.from_pretrained`, and what others wrote loads here.

- Reading checks that the weights really arrived: a network that starts random without a word is the commonest cause of "fine-tuning gives 50 %"
  (richarddwang/electra_pytorch#34).
- No code of a folder is ever run, and no pickle is trusted: safetensors, or torch's weights-only reader. `model_folder` looks at the rest first.
"""

from __future__ import annotations

import copy
import logging
import pickle
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from headstart.backbones.kernels import use_fast_kernels
from headstart.backbones.text import Architecture, encode
from headstart.core.errors import BadInput
from headstart.core.machine import refuse_limits
from headstart.core.tensor_files import open_to_others
from headstart.core.words import first_line
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import check_tokenizer, library_errors, load_tokenizer, refuse_more_entries
from headstart.interop.model_folder import WEIGHTS, check_tokenizer_config, read_config, refuse_not_finite

logger = logging.getLogger(__name__)

WEIGHT_ERRORS = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, pickle.UnpicklingError, SafetensorError)
"""What a damaged file of weights may raise."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_SPECIAL_NAMES = {  # the conventional spellings, the first one present in the vocabulary counts
    "pad_token": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("[BOS]", "<s>", "<bos>", "<|endoftext|>", "[CLS]"),
    "eos_token": ("[EOS]", "</s>", "<eos>", "<|endoftext|>", "[SEP]"),
}


@dataclass
class Encoder:
    """A network that turns token ids into hidden states, with what is needed to feed it."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    hidden_size: int
    n_layers: int
    causal: bool  # a position sees only what stands before it (measured, not read from a name)
    max_length: int | None  # positions that the network has; None: no limit of its own
    segments: bool  # whether it takes two kinds of `token_type_ids`
    whole: bool = True  # False: the encoder half of an encoder-decoder

    def hidden_states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Hidden states of the last layer, [batch, length, hidden].

        Args:
            batch: `input_ids` int64 [batch, length]; `attention_mask` [batch, length], true where a token stands, if a row is padded (on the right);
                `token_type_ids` [batch, length], which networks without segments do not get.
        """
        if self.module.config.model_type in get_args(Architecture):
            return encode(self.module, batch)  # without the host syncs of transformers' own mask functions
        inputs = {"input_ids": batch["input_ids"]}
        if "attention_mask" in batch and not self.causal:  # a causal network never looks at padding on the right
            inputs["attention_mask"] = batch["attention_mask"]
        if "token_type_ids" in batch and self.segments:
            inputs["token_type_ids"] = batch["token_type_ids"]
        return self.module(**inputs).last_hidden_state


def save_model_folder(model: PreTrainedModel, tokenizer: Tokenizer | PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json: `AutoModel` and `AutoTokenizer` load the folder.

    The files are written beside the folder and moved in one by one; other files (a README) stay. A tokenizer without a template gets the
    one of its family, so that `tokenizer(text)` gives what the model was trained on: [CLS] A [SEP] (B [SEP]) for a bidirectional network, the begin
    token alone for a causal one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside, quiet():
        model.save_pretrained(beside)
        _as_transformers_tokenizer(tokenizer, model).save_pretrained(beside)
        open_to_others(beside)
        for path in sorted(Path(beside).iterdir()):
            path.replace(folder / path.name)


def load_encoder(folder: str | Path, fresh: bool = False, seed: int = 0, dropout: float | None = None) -> Encoder:
    """Any text model folder of transformers (BERT, ELECTRA, ModernBERT, RoBERTa, GPT-2, Llama, T5's encoder ...), in float32 on the CPU.

    Args:
        folder: a folder on this machine; nothing is downloaded.
        fresh: the same architecture with its own random initialisation; the folder's weights are not read.
        seed: for `fresh`; the state of the global generator is left as it was.
        dropout: sets every dropout of the network; None keeps those of config.json.

    Raises:
        BadInput: a file is missing or broken, the folder needs code of its own, or weights are missing, left over or of another shape.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder, config)
    if dropout is not None:
        set_dropout(config, dropout)
    if fresh:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            model = AutoModel.from_config(config, dtype=torch.float32)
    else:
        model = _read_weights(folder, config)
    if config.is_encoder_decoder:
        model = model.get_encoder()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # trained on next-sentence prediction or not at all; no task here uses it
    if getattr(config, "use_cache", False):
        config.use_cache = model.config.use_cache = False
    model.eval()
    use_fast_kernels(model)
    try:
        return Encoder(
            module=model,
            tokenizer=tokenizer,
            hidden_size=config.hidden_size,
            n_layers=config.num_hidden_layers,
            causal=_is_causal(model),
            max_length=_max_length(model, config),
            segments=(getattr(config, "type_vocab_size", 0) or 0) >= 2,
            whole=not config.is_encoder_decoder,
        )
    except WEIGHT_ERRORS as error:  # an image model; settings that fit the weights but no input
        raise BadInput(f"holds a network that cannot read token ids ({first_line(error)})", "Give a text model.", file=folder) from None


def load_model(folder: str | Path, auto_class: Any = AutoModel, may_lack: str | None = None) -> PreTrainedModel:
    """A transformers folder as `auto_class` builds it (AutoModelForCausalLM, AutoModelForMaskedLM ...), in float32, to continue training it.

    Args:
        may_lack: a regular expression of the names of weights that may be missing: they begin random, with a warning.

    Raises:
        BadInput: as `load_encoder`; a head that the folder does not hold is missing weights too.
    """
    folder = Path(folder)
    return _read_weights(folder, read_config(folder), auto_class, may_lack)


def load_decoder(
    folder: str | Path, fresh: bool = False, seed: int = 0, dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A causal language model with its head and its tokenizer, in float32 on the CPU; arguments and errors as `load_encoder`."""
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder, config)
    if dropout is not None:
        set_dropout(config, dropout)
    if config.is_encoder_decoder or config.model_type not in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput(f"holds a {config.model_type} model, which writes no text", "Give a decoder, such as a run of causal-lm.", file=folder)
    if fresh:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        model = _read_weights(folder, config, AutoModelForCausalLM)
    if not _is_causal(model.base_model):  # BERT has a causal class too
        raise BadInput(f"holds a {config.model_type} model that sees what comes after", "Give a decoder, such as a run of causal-lm.", file=folder)
    model.eval()
    use_fast_kernels(model)
    return model, tokenizer


def set_dropout(config: Any, probability: float) -> None:
    """Sets every dropout probability of a transformers config (they are named hidden_dropout_prob, attention_dropout, embd_pdrop, ...)."""
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, probability)


def read_tokenizer(folder: Path, config: Any) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder. Raises BadInput where it has none that can be used with the network of `config`."""
    mend = "Put the tokenizer.json (or vocab.txt) that the network was trained with into the folder."
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):  # transformers would make an empty one
        if hasattr(config, "patch_size"):
            what = f"holds a network that reads images ({config.model_type}), where one that reads texts is needed"
            raise BadInput(what, "Give a network of texts; finetune (image-classification) tries one of images.", file=folder)
        raise BadInput(f"has no tokenizer (one of {', '.join(_TOKENIZER_FILES)})", mend, file=folder)
    check_tokenizer_config(folder)
    if (folder / "tokenizer.json").is_file():
        load_tokenizer(folder / "tokenizer.json", TextConfig())  # refuses what would take memory or time without end
    with quiet(), library_errors("has a tokenizer that cannot be read", folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadInput(f"has a slow tokenizer, {type(tokenizer).__name__}", "Convert it to a tokenizer.json with transformers.", file=folder)
    check_tokenizer(tokenizer.backend_tokenizer, folder)
    refuse_more_entries(tokenizer.backend_tokenizer, config.vocab_size, folder)
    return tokenizer


def _read_weights(folder: Path, config: Any, auto_class: Any = AutoModel, may_lack: str | None = None) -> PreTrainedModel:
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise BadInput(f"has no weights (one of {', '.join(WEIGHTS)})", "Export the model again, or ask for a random start.", file=folder)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model, info = auto_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, in words
                output_loading_info=True,
            )
    except WEIGHT_ERRORS as error:
        refuse_limits(error, folder)
        if "Unrecognized configuration class" in str(error):
            raise BadInput(
                f"holds a {config.model_type} model, which has no head of the kind {auto_class.__name__} builds",
                "Continue a decoder with causal-lm, an encoder with mlm or electra.",
                file=folder,
            ) from None
        raise BadInput(f"the weights cannot be read ({first_line(error)})", "Save the model again, as safetensors.", file=folder) from None
    lacking = sorted(name for name in info["missing_keys"] if may_lack is not None and re.search(may_lack, name))
    if lacking:
        logger.warning("%s lacks %s, which begin random", folder, ", ".join(lacking))
    missing = sorted(name for name in info["missing_keys"] if name not in lacking and not re.search(r"(?:^|\.)pooler\.", name))
    left_over = sorted(name for name in info["unexpected_keys"] if re.search(r"\.\d+\..*\.weight$", name))
    mismatched = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"])
    total = len(list(model.parameters()))
    if missing:
        raise BadInput(
            f"{len(missing)} of the network's {total} weights are not in the file, for example {missing[0]}: they would start random",
            "Check that config.json and the weights belong together, and that the names are those of transformers.",
            file=folder,
        )
    if mismatched:
        what = f"{len(mismatched)} weights have another shape than config.json says, for example {mismatched[0]}"
        raise BadInput(what, "Use the config.json of these weights.", file=folder)
    if left_over:
        raise BadInput(
            f"{len(left_over)} weights of the file have no place in the network of config.json, for example {left_over[0]}",
            "Check that config.json (number of layers, model_type) belongs to these weights.",
            file=folder,
        )
    refuse_not_finite(model.named_parameters(), folder)
    return model


@torch.no_grad()
def _is_causal(model: Any) -> bool:
    """Whether the first position stays as it is when the last token changes."""
    config, was_training = model.config, model.training
    if config.is_encoder_decoder:
        return False
    rows = torch.full((2, 4), config.vocab_size - 1, device=model.device)
    rows[1, 3] = config.vocab_size - 2
    first, second = model.eval()(input_ids=rows).last_hidden_state[:, 0]
    model.train(was_training)
    return torch.equal(first, second)


def learned_positions(model: nn.Module) -> int | None:
    """Tokens of the longest row that a table of learned positions has room for; None where positions are rotary or relative."""
    for name, module in model.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(module, nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts positions from padding_idx + 1
            return module.num_embeddings - before
    return None


def _max_length(model: nn.Module, config: Any) -> int | None:
    positions = learned_positions(model) or getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def _as_transformers_tokenizer(tokenizer: Tokenizer | PreTrainedTokenizerFast, model: PreTrainedModel) -> PreTrainedTokenizerFast:
    config = model.config
    limit = _max_length(model, config)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer
    refuse_more_entries(tokenizer, config.vocab_size)
    vocabulary = tokenizer.get_vocab()
    special = {role: present[0] for role, names in _SPECIAL_NAMES.items() if (present := [name for name in names if name in vocabulary])}
    own = copy.deepcopy(tokenizer)
    own.no_padding()
    own.no_truncation()
    if own.post_processor is None:
        _add_template(own, special, causal=_is_causal(model.base_model))
    inputs = ["input_ids", "attention_mask"]
    if (getattr(config, "type_vocab_size", 0) or 0) >= 2:
        inputs.insert(1, "token_type_ids")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=own, model_input_names=inputs, **special)
    if limit is not None:
        wrapped.model_max_length = limit
    return wrapped


def _add_template(tokenizer: Tokenizer, special: dict[str, str], causal: bool) -> None:
    begin = special.get("bos_token") if causal else special.get("cls_token")
    end = None if causal else special.get("sep_token")
    if begin is None or (end is None and not causal):
        return
    ids = [(name, tokenizer.token_to_id(name)) for name in dict.fromkeys((begin, end)) if name is not None]
    if causal:
        tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=ids)
    else:
        tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B:1 {end}:1", special_tokens=ids)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' bars and load reports off for a moment: what matters of them is raised or said by us."""
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
