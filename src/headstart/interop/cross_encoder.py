"""Cross-encoders: networks of transformers that read a query with a document and give one score (ForSequenceClassification with one label, which is
what sentence-transformers calls a CrossEncoder).

A folder without such a head gives a network with a new one, and says so: transformers does it with a warning that nobody reads, and the scores are
noise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from headstart.backbones.kernels import use_fast_kernels
from headstart.core.errors import BadInput
from headstart.core.words import first_line
from headstart.interop.model_folder import read_config, refuse_not_finite, weight_files
from headstart.interop.official import open_checkpoint
from headstart.interop.transformers_io import WEIGHT_ERRORS, quiet, read_tokenizer, set_dropout

RAW_SCORES = {"activation_fn": "torch.nn.modules.linear.Identity"}
"""For sentence-transformers in config.json: scores as they are, without a sigmoid."""
_OLD_NAMES = ((re.compile(r"\bgamma$"), "weight"), (re.compile(r"\bbeta$"), "bias"))
"""Of a LayerNorm in checkpoints of 2018 and 2019."""
_NO_WEIGHTS = re.compile(r"\.position_ids$|\.token_type_ids$")


class Score(nn.Linear):
    """[..., dim] -> [..., 1] in float32, also under autocast: in bf16 many documents of a query would have one score, and the order in which they
    came decide."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float(), self.bias.float())


@dataclass
class CrossEncoder:
    """A network that scores pairs.

    Attributes:
        module: ForSequenceClassification with one label.
        kept: the head is the one of the folder; False: it is new, and so are its scores.
        max_length: positions of the network; None: no limit of its own.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    kept: bool
    max_length: int | None


def named_state(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder in float32, named as transformers names them: old LayerNorm names are mended, and a head `cls` of one output (the
    official PROP, `cls.weight` [1, hidden]) is `classifier`.

    Raises:
        BadInput: there are none, or they cannot be read.
    """
    config = read_config(folder)
    if not weight_files(folder):
        raise BadInput("has no weights", "Export the model again.", file=folder)
    state = {}
    for name, value in open_checkpoint(folder).tensors().items():
        for pattern, now in _OLD_NAMES:
            name = pattern.sub(now, name)
        if not _NO_WEIGHTS.search(name):
            state[name] = value.float() if value.is_floating_point() else value
    refuse_not_finite(state.items(), folder)
    rank_head = state.get("cls.weight")
    if rank_head is not None and rank_head.shape == (1, getattr(config, "hidden_size", 0)):
        state["classifier.weight"], state["classifier.bias"] = state.pop("cls.weight"), state.pop("cls.bias", torch.zeros(1))
    return state


def load_cross_encoder(
    folder: str | Path, *, fresh: bool = False, new_head: bool = False, seed: int = 0, dropout: float | None = None
) -> CrossEncoder:
    """A folder of transformers (BERT, RoBERTa, ELECTRA, ModernBERT ...) or of the official PROP as a network with one score.

    Args:
        fresh: the same architecture with its own random initialisation.
        new_head: a new head where the folder has one.
        seed: of what is new; the state of the global generator is left as it was.
        dropout: sets every dropout of the network; None keeps those of config.json.

    Raises:
        BadInput: no encoder, or weights that are missing or of another shape.
    """
    folder = Path(folder)
    config = read_config(folder)
    config.num_labels = 1
    tokenizer = read_tokenizer(folder, config)
    if dropout is not None:
        set_dropout(config, dropout)
        if getattr(config, "classifier_dropout", None) is not None:
            config.classifier_dropout = dropout
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except WEIGHT_ERRORS as error:
        what = f"holds a {config.model_type} model, which scores no pairs here ({first_line(error)})"
        raise BadInput(what, "Give an encoder: BERT, RoBERTa, ELECTRA, ModernBERT.", file=folder) from None
    kept = False
    if not fresh:
        kept = _load(model, named_state(folder), new_head, folder)
    model.eval()
    use_fast_kernels(model)
    head = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1][-1]
    head.__class__ = Score  # the class alone: its parameters stay the same objects, under the same names
    limit = getattr(tokenizer, "model_max_length", None)
    positions = getattr(config, "max_position_embeddings", None)
    limits = [int(one) for one in (limit, positions) if isinstance(one, int) and 0 < one < 1 << 30]
    return CrossEncoder(model, tokenizer, kept, min(limits, default=None))


def _load(model: Any, state: dict[str, Tensor], new_head: bool, folder: Path) -> bool:
    """Puts weights into a network. Returns whether the head was among them, and was wanted."""
    prefix = f"{model.base_model_prefix}."
    own = model.state_dict()
    if not any(name.startswith(prefix) for name in state):  # a backbone alone
        state = {name if name.startswith("classifier.") else prefix + name: value for name, value in state.items()}
    is_head = {name: not name.startswith(prefix) or ".pooler." in name for name in own}
    fits = {name: name in state and state[name].shape == own[name].shape for name in own}
    if lacking := [name for name in own if not is_head[name] and not fits[name] and not _NO_WEIGHTS.search(name)]:
        what = f"{len(lacking)} of the network's {len(own)} weights are not in the file, or have another shape, for example {lacking[0]}"
        raise BadInput(what, "Check that config.json and the weights belong together, and that the names are those of transformers.", file=folder)
    heads = [name for name in own if not name.startswith(prefix)]
    kept = not new_head and all(fits[name] for name in own if is_head[name])
    taken = {name: state[name] for name in own if fits[name] and (kept or name not in heads)}
    model.load_state_dict(taken, strict=False)
    return kept

