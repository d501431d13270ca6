"""The two networks of ELECTRA from transformers' modules, with the paper's sharing of weights, its initialisation, and loading from folders.

Sharing is sharing of modules: the generator's embedding module *is* the main network's, so word, position and token-type tables and the embedding
LayerNorm exist once, and each network keeps its own `embeddings_project` (google-research/electra, pretrain/run_pretraining.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ElectraForPreTraining, ModernBertModel, PreTrainedModel
from transformers.activations import ACT2FN

from headstart.backbones.text import build_encoder, build_masked_lm, encoder_config, word_embeddings
from headstart.core.errors import BadInput
from headstart.core.files import inside, own_file
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import WEIGHT_ERRORS, quiet
from headstart.methods.electra.config import ElectraConfig

logger = logging.getLogger(__name__)

RTD_HEAD_FILE = "rtd_head.safetensors"
COPY_GATE_FILE = "copy_gate.safetensors"
_STD = 0.02
_OUTPUT = ("generator_lm_head.weight", "decoder.weight")  # the word table under the name of the output layer
_HEADS = ("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "head.", "decoder.")  # what a folder may lack
_GLOROT = ("embeddings_project", "dense_prediction")  # layers that the official code makes without an initialiser


class RTDHead(nn.Module):
    """[..., hidden] -> [...]: one logit a token, positive for "replaced". The names are those of transformers' ELECTRA."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACT2FN["gelu"]
        self.dense_prediction = nn.Linear(hidden_size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dense_prediction(self.activation(self.dense(hidden))).squeeze(-1)


class RotaryDiscriminator(nn.Module):
    """ModernBERT with the replaced-token head: what `ElectraForPreTraining` is for the paper's encoder."""

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.model = encoder
        self.discriminator_predictions = RTDHead(encoder.config.hidden_size)

    @property
    def base_model(self) -> PreTrainedModel:
        return self.model


def build(config: ElectraConfig, vocab_size: int, special_ids: Mapping[str, int]) -> tuple[Any, Any]:
    """(generator, main network), initialised and with shared weights.

    The generator is a ForMaskedLM, or None where there is none. The main network is what is kept: a discriminator (`base_model` and
    `discriminator_predictions`), or a ForMaskedLM in the arms whose main network predicts tokens.
    """
    settings = _settings(config, vocab_size, special_ids)
    main: Any
    if not config.has_rtd_head:
        main = build_masked_lm(config.architecture, **settings)
    elif config.architecture == "electra":
        main = _electra_discriminator(settings)
    else:
        main = RotaryDiscriminator(build_encoder("modernbert", **settings))
    generator = build_masked_lm(config.architecture, **_generator_settings(config, settings)) if config.has_generator else None
    for network in (main, generator):
        if network is not None:
            initialise(network)
    share(config, generator, main)
    return generator, main


def share(config: ElectraConfig, generator: Any, main: Any) -> None:
    """Makes the weights one that the config ties; needed again after weights were loaded into separate modules."""
    for network in (main, generator):
        if network is not None:
            # The official code trains the [PAD] row like any other; transformers would give it no gradient from the look-up.
            word_embeddings(network.base_model).padding_idx = None
    if not config.has_rtd_head:
        _tie_output(main)
    if generator is None:
        return
    if not config.untied_generator:
        setattr(generator, generator.base_model_prefix, main.base_model)
    elif not config.untied_generator_embeddings:
        generator.base_model.embeddings = main.base_model.embeddings
    _tie_output(generator)


def initialise(network: nn.Module) -> None:
    """The official initialisation: normal with deviation .02, redrawn outside two deviations; Glorot uniform where TensorFlow's default applied."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            if name.rsplit(".", 1)[-1] in _GLOROT:
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.trunc_normal_(module.weight, std=_STD, a=-2 * _STD, b=2 * _STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=_STD, a=-2 * _STD, b=2 * _STD)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def copy_encoder(source: nn.Module, target: nn.Module) -> None:
    """Copies all weights of one encoder into another of the same shape, in place."""
    for theirs, mine in zip((*source.parameters(), *source.buffers()), (*target.parameters(), *target.buffers()), strict=True):
        mine.copy_(theirs)


# --- folders --------------------------------------------------------------------------------------------------------------------------------


OF_FOLDER = (
    "architecture", "num_layers", "hidden_size", "intermediate_size", "num_heads", "embedding_size", "max_positions",
    "generator_hidden_size", "generator_layers", "untied_generator_embeddings",
)  # fmt: skip
"""The settings that `config_of_folder` takes from a folder (those of the generator only where it has one)."""


def config_of_folder(folder: Path, config: ElectraConfig, vocab_size: int | None = None) -> ElectraConfig:
    """`config` with the network sizes that a folder has.

    Args:
        folder: one with `discriminator/` (and `generator/`) inside, or a single ELECTRA or ModernBERT folder of transformers.
        vocab_size: of the prepared text; None: it is not there yet.

    Raises:
        BadInput: another architecture, or another vocabulary than the store's.
    """
    main_folder, generator_folder = _folders(folder)
    found = read_config(main_folder)
    if found.model_type not in ("electra", "modernbert"):
        raise BadInput(f"holds a model of type '{found.model_type}'", "ELECTRA continues from ELECTRA or ModernBERT folders.", file=main_folder)
    if vocab_size is not None and found.vocab_size != vocab_size:
        raise BadInput(
            f"its vocabulary has {found.vocab_size} entries, the prepared text {vocab_size}",
            "Prepare the text with the model's own tokenizer.",
            file=main_folder,
        )
    if config.has_rtd_head and any("MaskedLM" in name for name in found.architectures or []):
        raise BadInput(
            "is a generator (masked language model), not a discriminator",
            "Give the discriminator's folder, or one that holds both as discriminator/ and generator/.",
            file=main_folder,
        )
    config = replace(
        config,
        architecture=found.model_type,
        num_layers=found.num_hidden_layers,
        hidden_size=found.hidden_size,
        intermediate_size=found.intermediate_size,
        num_heads=found.num_attention_heads,
        embedding_size=getattr(found, "embedding_size", None),
        max_positions=found.max_position_embeddings,
    )
    if generator_folder is not None and config.has_generator and config.untied_generator:
        generator = read_config(generator_folder)
        own_tables = getattr(generator, "embedding_size", generator.hidden_size) != getattr(found, "embedding_size", found.hidden_size)
        config = replace(
            config,
            generator_hidden_size=generator.hidden_size / found.hidden_size,
            generator_layers=generator.num_hidden_layers / found.num_hidden_layers,
            untied_generator_embeddings=config.untied_generator_embeddings or own_tables,
        )
    return config


def load(folder: Path, config: ElectraConfig, vocab_size: int, special_ids: Mapping[str, int]) -> tuple[Any, Any]:
    """(generator, main network) with the weights of a folder; what it lacks (a generator, a head) starts fresh, and the log says so.

    Args:
        config: from `config_of_folder`.

    Raises:
        BadInput: weights of the encoder are missing.
    """
    generator, main = build(config, vocab_size, special_ids)
    main_folder, generator_folder = _folders(folder)
    settings = _settings(config, vocab_size, special_ids)
    wanted = encoder_config(config.architecture, **settings)
    if isinstance(main, RotaryDiscriminator):
        main.model.load_state_dict(_weights(ModernBertModel, main_folder, wanted))
        load_beside(main.discriminator_predictions, main_folder / RTD_HEAD_FILE)
    else:
        main.load_state_dict(_weights(type(main), main_folder, wanted, may_lack=_HEADS), strict=False)
    if generator is not None and generator_folder is not None:
        wanted = encoder_config(config.architecture, **_generator_settings(config, settings))
        weights = _weights(type(generator), generator_folder, wanted)
        if not config.untied_generator_embeddings:
            if not _same_tables(weights, generator):
                logger.warning("%s: the generator's embeddings differ from the discriminator's; shared again, the discriminator's are kept", folder)
            weights = {name: value for name, value in weights.items() if ".embeddings." not in name and name not in _OUTPUT}
        generator.load_state_dict(weights, strict=False)
    elif generator is not None:
        logger.warning("%s holds no generator: it starts fresh", folder)
    share(config, generator, main)
    return generator, main


def save_beside(head: nn.Module, path: Path) -> None:
    """Writes a head that the transformers folder has no place for."""
    save_tensors({name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}, path)


def load_beside(head: nn.Module, path: Path) -> None:
    """Reads what `save_beside` wrote, if it is there.

    Raises:
        BadInput: it is damaged, or of another head.
    """
    if path.is_file():
        try:
            head.load_state_dict(load_file(own_file(path.parent, path.name)))
        except WEIGHT_ERRORS as error:
            raise BadInput(f"cannot be loaded: {first_line(error)}", "Export the model again.", file=path) from error


def _folders(folder: Path) -> tuple[Path, Path | None]:
    main = inside(folder, "discriminator") if (folder / "discriminator" / "config.json").is_file() else folder
    if not (main / "config.json").is_file():
        raise BadInput("holds no config.json, nor a folder discriminator/ with one", "Give an export or a transformers folder.", file=folder)
    generator = inside(folder, "generator")
    return main, generator if (generator / "config.json").is_file() else None


def _settings(config: ElectraConfig, vocab_size: int, special_ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_layers,
        "num_heads": config.heads,
        "intermediate_size": config.feed_forward,
        "max_length": config.max_positions,
        "dropout": config.dropout,
        "special_ids": special_ids,
        "embedding_size": config.embedding_size,
    }


def _generator_settings(config: ElectraConfig, settings: dict[str, Any]) -> dict[str, Any]:
    if not config.untied_generator:
        return settings
    width = config.generator_width
    own = {"hidden_size": width, "num_layers": max(1, round(config.num_layers * config.generator_layers))}
    if width != config.hidden_size:
        own |= {"intermediate_size": 4 * width, "num_heads": max(1, width // 64)}
    if config.untied_generator_embeddings:
        own["embedding_size"] = width
    else:
        own["embedding_size"] = config.embedding_size or config.hidden_size
    return settings | own


def _electra_discriminator(settings: dict[str, Any]) -> ElectraForPreTraining:
    shape: Any = encoder_config("electra", **settings)
    return ElectraForPreTraining(shape)


def _weights(kind: Any, folder: Path, wanted: Any, may_lack: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The state dict of a folder as `kind` names it; of the heads in `may_lack` only what the folder has."""
    try:
        with quiet():
            model, info = kind.from_pretrained(folder, config=wanted, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    except WEIGHT_ERRORS as error:
        raise BadInput(f"its weights cannot be loaded: {first_line(error)}", "Export the model again.", file=folder) from error
    missing = set(info["missing_keys"])
    if lost := sorted(name for name in missing if not name.startswith(may_lack)):
        what = f"it lacks {len(lost)} weights of the encoder, for example {lost[0]}"
        raise BadInput(what, "Check that config.json belongs to these weights.", file=folder)
    if missing:
        logger.warning("%s has no %s: the head starts fresh", folder, sorted(missing)[0].split(".")[0])
    return {name: value for name, value in model.state_dict().items() if name not in missing}


def _same_tables(weights: Mapping[str, Tensor], generator: Any) -> bool:
    own = generator.state_dict()
    return all(torch.equal(value, own[name].cpu()) for name, value in weights.items() if ".embeddings." in name)


def _tie_output(model: Any) -> None:
    model.get_output_embeddings().weight = word_embeddings(model.base_model).weight
