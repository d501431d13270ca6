"""interleaved-lm: a causal language model learns to read images between texts (InfiMM-WebMath, arXiv 2409.12568, section 4.1).

- A frozen vision tower, a Perceiver resampler that makes 64 tokens of any number of patches, a linear layer to the width of the language model; the
  tokens stand in the sequence where the image stands in the document.
- Next-token prediction on text tokens alone; the last stage on answers alone.
- Three stages, each a run that continues from the one before (`--init`): alignment (resampler and projection learn), continued pre-training, and
  instruction tuning (the language model learns too). The tower never changes, so its features are computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from headstart.backbones.text import build_llama
from headstart.core.errors import BadInput, UsageError
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.head import write_first_documents
from headstart.data.interleaved.prepare import source_differences
from headstart.data.interleaved.read import find_documents
from headstart.data.interleaved.rows import InterleavedRows, Layout, interleaved_rows
from headstart.data.interleaved.store import InterleavedStore, open_interleaved_store, prepare_interleaved
from headstart.data.text.prepare import preparation_changes
from headstart.engine.distributed import is_cut
from headstart.engine.method import Batch, Context, Phase
from headstart.engine.text_method import TextMethod, model_folder, refuse_long_rows, sizes_of, special
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model
from headstart.interop.vision_tower import VisionTower, load_vision_tower, refuse_images, tower_form
from headstart.methods.interleaved_lm.config import SETTINGS, InterleavedLMConfig
from headstart.methods.interleaved_lm.features import FeatureRows, cached_features, features_folder, worth_it
from headstart.methods.interleaved_lm.network import MARKER, RESAMPLER, TOWER, InterleavedNetwork, load_resampler, read_resampler_config, resampler_of
from headstart.objectives.projected_loss import next_token_loss

BETWEEN = ("network.resampler.", "network.projection.")
"""What lies between the tower and the language model, by the names of its parameters."""
FROZEN = "network.tower."


class InterleavedLM(TextMethod):
    """A causal language model with a frozen vision tower.

    Args:
        init: a causal language model of transformers, or an export of this method.
    """

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    DataConfig = InterleavedConfig  # type: ignore[assignment]
    data_group = SETTINGS.data_group

    config: InterleavedLMConfig
    store: InterleavedStore  # type: ignore[assignment]

    def __init__(self, config: InterleavedLMConfig, store: InterleavedStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)  # type: ignore[arg-type]
        if init is None:
            config.check()
        model: Any = None if init is None else load_model(model_folder(init), AutoModelForCausalLM)
        if model is None:
            model = build_llama(
                vocab_size=store.vocab_size,
                special_ids=store.special_ids,
                hidden_size=config.hidden_size,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_length=config.sequence_length,
            )
        refuse_long_rows(model, config.sequence_length)
        self.tower_folder = tower_folder(config, init)
        tower = load_vision_tower(self.tower_folder)
        if store.images is not None:
            refuse_images(tower.form, store.images.channels, store.images.height)
        continues = init is not None and has_resampler(init)
        self.network = InterleavedNetwork(model, tower, read_resampler_config(init) if continues else resampler_of(config, tower))  # type: ignore[arg-type]
        if continues:
            load_resampler(self.network, init)  # type: ignore[arg-type]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.learns(name))

    # --- data -------------------------------------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: InterleavedConfig) -> InterleavedStore:  # type: ignore[override]
        return prepare_interleaved(list(sources), out, data)

    @classmethod
    def open_store(cls, folder: Path) -> InterleavedStore:  # type: ignore[override]
        return open_interleaved_store(folder)

    @classmethod
    def rows(  # type: ignore[override]
        cls, store: InterleavedStore, config: InterleavedLMConfig, split: Literal["train", "held_out"] = "train"
    ) -> InterleavedRows:
        layout = Layout(
            config.sequence_length,
            config.latents,
            config.max_images,
            config.pack,
            begin=tuple(special(store, "bos")),  # type: ignore[arg-type]
            end=tuple(special(store, "eos")),  # type: ignore[arg-type]
        )
        return interleaved_rows(store, layout, split, answers_only=config.stage == "instruction")

    def training_rows(self, parts: Sequence[InterleavedRows]) -> list[Any]:
        """The rows with the tower's features in place of pixels, where these are kept."""
        return [self.with_features(part) for part in parts]

    def with_features(self, rows: InterleavedRows) -> InterleavedRows | FeatureRows:
        store, images = rows.store, rows.store.images
        if images is None or self.config.cache_features == "off":
            return rows
        tower = self.whole_tower()
        folder = features_folder(store.folder, images, tower)
        there = (folder / "features.json").exists()  # a run goes on with what it began with
        if self.config.cache_features == "auto" and not there and not worth_it(store.folder, images, tower):
            return rows
        return FeatureRows(rows, cached_features(folder, images, tower))

    def whole_tower(self) -> VisionTower:
        """The tower with all of its weights: FSDP may have cut those of this process."""
        tower = self.network.tower
        return load_vision_tower(self.tower_folder) if any(map(is_cut, tower.parameters())) else tower

    @classmethod
    def smoke_source(  # type: ignore[override]
        cls, sources: Sequence[str | Path], folder: Path, data: InterleavedConfig, records: int
    ) -> tuple[list[str], InterleavedConfig]:
        path = write_first_documents(sources, folder / "documents", data, records)
        return [str(path)], dataclasses.replace(data, images=None, vocab_size=min(data.vocab_size, 512), held_out_share=0.1)

    @classmethod
    def source_changes(cls, store: InterleavedStore, sources: Sequence[str | Path]) -> list[str]:  # type: ignore[override]
        try:
            return source_differences(store, find_documents(sources))
        except BadInput as error:  # they are gone
            return [str(error).splitlines()[0]]

    @classmethod
    def preparation_changes(cls, store: InterleavedStore, data: InterleavedConfig) -> dict[str, tuple[Any, Any]]:  # type: ignore[override]
        return preparation_changes(store, data.preparation(), data.of_texts())

    # --- beginning with a model ---------------------------------------------------------------------------------------------------------------

    @classmethod
    def settings_of(cls, init: Path, config: InterleavedLMConfig) -> dict[str, Any]:
        found = sizes_of(read_config(model_folder(init)))
        if not has_resampler(init):
            return found
        between = read_resampler_config(init)
        sizes = {"latents": between.latents, "resampler_layers": between.depth, "resampler_heads": between.heads}
        return found | sizes | {"resampler_head_size": between.dim_head, "vision_tower": None}

    @classmethod
    def data_settings_of(cls, init: Path, data: InterleavedConfig) -> dict[str, Any]:  # type: ignore[override]
        known = {field.name for field in dataclasses.fields(data)}
        return {name: value for name, value in super().data_settings_of(init, data).items() if name in known}  # type: ignore[arg-type]

    @classmethod
    def suggestions_of(cls, init: Path, config: InterleavedLMConfig, data: InterleavedConfig) -> dict[str, dict[str, Any]]:
        """Images as the tower sees them."""
        form = tower_form(tower_folder(config, init))
        return {"interleaved": {"image_size": form.image_size, "image_mode": "grey" if form.channels == 1 else "rgb"}}

    # --- training -------------------------------------------------------------------------------------------------------------------------------

    def learns(self, name: str) -> bool:
        """Whether a parameter learns in this stage."""
        return name.startswith(BETWEEN) if self.config.stage == "alignment" else not name.startswith(FROZEN)

    def phases(self, total_steps: int) -> list[Phase]:
        return [Phase(self.config.stage, trainable=self.learns)]

    def plan_lines(self) -> list[str]:
        """What learns."""
        network = self.network
        parts = {"language model": network.model, "resampler": network.resampler, "projection": network.projection, "tower": network.tower}
        told = []
        for name, part in parts.items():
            parameters = list(part.parameters())
            state = "learns" if any(parameter.requires_grad for parameter in parameters) else "frozen"
            told.append(f"{name} {sum(map(Tensor.numel, parameters)) / 1e6:.2f} M {state}")
        return [f"  stage      {self.config.stage}: {', '.join(told)}"]

    def predicted_per_row(self) -> float:
        return self.config.sequence_length / 2

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean -log p(token | all before it) over the text tokens that count, in nats."""
        output = self.network.model.get_output_embeddings()
        loss, predicted = next_token_loss(self.hidden_states(batch), output, batch["input_ids"], counted(batch))
        return {"loss": loss, "weight": predicted}

    def hidden_states(self, batch: Batch) -> Tensor:
        return self.network.hidden_states(batch)

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        """class: the last token, which alone has seen the whole row."""
        if pooling == "mean":
            return super().feature(batch, ctx, pooling)
        hidden, mask = self.hidden_states(batch), batch.get("attention_mask")
        return hidden[:, -1] if mask is None else hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]

    def backbone(self) -> nn.Module:
        return self.network.model.base_model

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """What the model writes after the first half of a held-out row, or after a person's own text; the likeliest token each time."""
        lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else torch.full((len(batch["input_ids"]),), batch["input_ids"].shape[1])
        lines = []
        for row, length in enumerate(lengths.tolist()):
            kept = length - len(special(self.store, "sep")) if own_text else max(2, length // 2)  # type: ignore[arg-type]
            part = {name: value[row : row + 1] for name, value in batch.items() if name != "attention_mask"}
            part |= {name: value[:, :kept] for name, value in part.items() if name in ("input_ids", "image_slots")}
            (written,) = self.network.generate(part, do_sample=False, max_new_tokens=32, pad_token_id=self.special_ids.get("pad", 0))
            lines.append(f"{self.in_words(part)} >>> {self.tokenizer.decode(written)}")
        return lines

    def in_words(self, part: Batch) -> str:
        """One row as a text, <image> in the place of each image."""
        ids, slots = part["input_ids"][0].tolist(), part["image_slots"][0].tolist() if "image_slots" in part else []
        words, tokens = "", []  # type: str, list[int]
        for place, token in enumerate(ids):
            slot = slots[place] if slots else 0
            if slot == 0:
                tokens.append(token)
            elif slot % self.network.resampler.config.latents == 1 or self.network.resampler.config.latents == 1:
                words, tokens = words + self.tokenizer.decode(tokens) + MARKER, []
        return words + self.tokenizer.decode(tokens)

    def export(self, folder: Path) -> None:
        self.network.save(folder, self.tokenizer)


def counted(batch: Batch) -> Tensor | None:
    """bool [batch, length]: the text tokens that are targets; None where all are."""
    counts = batch.get("attention_mask")
    if "image_slots" in batch:
        text = batch["image_slots"] == 0
        counts = text if counts is None else counts & text
    if "unasked" in batch:
        counts = ~batch["unasked"] if counts is None else counts & ~batch["unasked"]
    return counts


def has_resampler(init: Path) -> bool:
    """Whether a model folder is an export of this method; otherwise it is a language model."""
    return (init / RESAMPLER / "config.json").is_file()


def tower_folder(config: InterleavedLMConfig, init: Path | None) -> Path:
    """The folder of the vision tower.

    Raises:
        UsageError: none is given.
    """
    if init is not None and (init / TOWER).is_dir():
        return init / TOWER
    if config.vision_tower is None:
        raise UsageError(
            "There is no vision tower.", "Give --method.vision-tower FOLDER: a folder of transformers with SigLIP, CLIP, ViT, DINOv2 or ConvNeXt."
        )
    return Path(config.vision_tower)


METHOD = InterleavedLM
