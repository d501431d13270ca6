"""The network of prop, with the names of the official checkpoints: a BERT with its pooler, `cls` as a layer of one output, and below it the head of
masked language modelling, `cls.predictions`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file
from headstart.core.tensor_files import save_tensors
from headstart.interop.cross_encoder import RAW_SCORES, Score, named_state
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import save_model_folder

MLM_HEAD = "mlm_head.safetensors"
"""Beside the re-ranker of an export: what continues its masked language modelling."""
_RANK_HEAD = ("cls.weight", "cls.bias")
_POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
_TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
_DROPPED = "cls.seq_relationship."
"""BERT's next-sentence head."""


class RankHead(Score):
    """[..., hidden] -> [..., 1]: the score; and, as the official names have it, the other head inside."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config.hidden_size, 1)
        self.predictions = BertLMPredictionHead(config)


class PropNetwork(BertPreTrainedModel):
    """BERT with two heads."""

    _tied_weights_keys = {  # noqa: RUF012 (transformers' own)
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.cls = RankHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def score(self, hidden: Tensor) -> Tensor:
        """float32 [rows]: s = cls(dropout(tanh(W h_CLS))) of the last hidden states [rows, length, hidden]."""
        assert self.bert.pooler is not None
        scores: Tensor = self.cls(self.dropout(self.bert.pooler(hidden)))
        return scores[:, 0]


WIDE, SAME, NEAR = 0.8, 8.0, 0.1
"""Of the start "matching": a weight's standard deviation is WIDE / sqrt(width); a token's attention begins with SAME more, before the softmax, for
one that equals it than for others; positions begin at NEAR of what tokens do."""


def random_network(config: Any, initial: Literal["bert", "matching"]) -> PropNetwork:
    """A network with random weights.

    A narrow BERT from N(0, 0.02) mixes next to nothing into [CLS] at first: its pooler sees nearly the same vector in every row
    (docs/methods/prop.md has the figures). A trained BERT has heads that look for equal tokens; "matching" begins with them.
    """
    if initial == "bert":
        return PropNetwork(config)
    usual, config.initializer_range = config.initializer_range, WIDE / config.hidden_size**0.5
    network = PropNetwork(config)
    config.initializer_range = usual
    head_size = config.hidden_size // config.num_attention_heads
    with torch.no_grad():
        network.bert.embeddings.position_embeddings.weight.mul_(NEAR)
        for layer in network.bert.encoder.layer:
            attention = layer.attention.self
            attention.query.weight.normal_(0.0, (SAME / (config.hidden_size * head_size**0.5)) ** 0.5)
            attention.key.weight.copy_(attention.query.weight)
    return network


def load_network(folder: Path) -> tuple[PropNetwork, list[str]]:
    """(the network of a folder, what of it is new, in words): an export of this method, an official checkpoint, or any BERT.

    Raises:
        UsageError: it is no BERT. BadInput: weights are missing, left over or of another shape.
    """
    config = read_config(folder)
    if config.model_type != "bert":
        what = f"The model in {folder} is a {config.model_type}, and prop continues a BERT."
        raise UsageError(what, "Give a BERT, such as bert-base-uncased or a run of mlm with --method.architecture bert.")
    with torch.random.fork_rng(devices=[]):
        network = PropNetwork(config)
    new = load_state(network, official_state(folder), folder)
    return network, new


def official_state(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder under the official names."""
    state = named_state(folder)
    if not any(name.startswith("bert.") for name in state):
        state = {name if name.startswith(("cls.", "classifier.")) else f"bert.{name}": value for name, value in state.items()}
    state = {name.replace("classifier.", "cls.", 1) if name.startswith("classifier.") else name: value for name, value in state.items()}
    if (folder / MLM_HEAD).is_file():
        from safetensors.torch import load_file

        state |= load_file(own_file(folder, MLM_HEAD))
    return state


def load_state(network: PropNetwork, state: dict[str, Tensor], folder: Path | None = None) -> list[str]:
    """Puts weights under official names into the network. Returns what stays new, in words.

    Raises:
        BadInput: a weight that no head or pooler explains is missing, is left over, or has another shape.
    """
    own = network.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(_DROPPED)}
    if "cls.weight" in state and state["cls.weight"].shape != own["cls.weight"].shape:  # a classifier of another task
        state = {name: value for name, value in state.items() if name not in _RANK_HEAD}
    for name in _TIED:
        if name not in state:  # tied: the other name has it
            own.pop(name)
    mend = "Check that config.json and the weights belong together, and that the names are those of transformers or of the official PROP."
    head = [name for name in own if name.startswith("cls.predictions.")]
    parts = {"rank head": _RANK_HEAD, "pooler": _POOLER, "head of masked language modelling": head}
    new = [what for what, names in parts.items() if not any(name in state for name in names)]
    missing = sorted(own.keys() - state.keys() - {name for what in new for name in parts[what]})
    left_over = sorted(state.keys() - network.state_dict().keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    for found, said in ((missing, "are not in the file"), (left_over, "have no place in the network"), (shapes, "have another shape")):
        if found:
            raise BadInput(f"{len(found)} weights {said}, for example {found[0]}", mend, file=folder)
    network.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    return new


def reranker_of(network: PropNetwork) -> BertForSequenceClassification:
    """The encoder with the rank head as transformers and sentence-transformers load it, with the same tensors."""
    config: Any = copy.deepcopy(network.config)
    config.num_labels = 1
    config.sentence_transformers = dict(RAW_SCORES)
    with torch.device("meta"):
        model: Any = BertForSequenceClassification(config)
    model.bert = network.bert
    model.classifier = nn.Linear(config.hidden_size, 1)
    model.classifier.weight, model.classifier.bias = network.cls.weight, network.cls.bias
    model.dropout = nn.Dropout(config.hidden_dropout_prob)
    reranker: BertForSequenceClassification = model
    return reranker


def save_network(network: PropNetwork, tokenizer: Any, folder: Path) -> None:
    """The re-ranker, and beside it the head of masked language modelling."""
    save_model_folder(reranker_of(network), tokenizer, folder)
    head = {f"cls.predictions.{name}": value.detach().cpu().contiguous() for name, value in network.cls.predictions.state_dict().items()}
    save_tensors({name: value for name, value in head.items() if name not in _TIED}, folder / MLM_HEAD)


def save_masked_lm(export: Path, to: Path) -> None:
    """An export's encoder as a BertForMaskedLM in a folder of its own: to go on with masked language modelling elsewhere."""
    network, new = load_network(export)
    if any("masked" in what for what in new):
        raise BadInput("holds no head of masked language modelling.", "Give an export of prop.", file=export)
    from headstart.interop.transformers_io import read_tokenizer

    with torch.random.fork_rng(devices=[]):
        model: Any = BertForMaskedLM(network.config)
    own = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in network.state_dict().items() if name in own}, strict=True)
    save_model_folder(model, read_tokenizer(export, network.config), to)
