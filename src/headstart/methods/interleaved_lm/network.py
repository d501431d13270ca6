"""The network: vision tower -> resampler -> projection -> tokens at the images' places -> causal language model.

    FOLDER/                   the language model, as transformers writes it: `AutoModelForCausalLM.from_pretrained(FOLDER)` loads it alone
    FOLDER/resampler/         config.json and model.safetensors: resampler and projection
    FOLDER/vision_tower/      the tower, as transformers writes it, with preprocessor_config.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from headstart.backbones.perceiver import PerceiverResampler, ResamplerConfig
from headstart.backbones.text import decode
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, read_json, write_json
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import form_of
from headstart.data.image.head import decode_records
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer, special_ids
from headstart.engine.distributed import is_cut
from headstart.engine.flops import uncounted
from headstart.engine.method import Batch
from headstart.interop.transformers_io import load_model, save_model_folder
from headstart.interop.vision_tower import VisionTower, load_vision_tower
from headstart.methods.interleaved_lm.config import InterleavedLMConfig

RESAMPLER, TOWER = "resampler", "vision_tower"
"""Folders of an export."""
MARKER = "<image>"


class InterleavedNetwork(nn.Module):
    """A causal language model with eyes.

    Args:
        model: of transformers, with its head. tower: frozen. resampler: the shape of what lies between them.
    """

    def __init__(self, model: Any, tower: VisionTower, resampler: ResamplerConfig) -> None:
        super().__init__()
        self.model = model
        self.tower = tower
        self.resampler = PerceiverResampler(resampler)
        self.projection = nn.Linear(resampler.dim, model.get_input_embeddings().embedding_dim)

    def visual_tokens(self, features: Tensor) -> Tensor:
        """[batch, m, patches, dim] of the tower -> [batch, m * latents, hidden]: the tokens of each row's images."""
        batch, m = features.shape[:2]
        tokens = self.projection(self.resampler(features.flatten(0, 1).float()))  # [batch * m, latents, hidden]
        return tokens.unflatten(0, (batch, m)).flatten(1, 2)

    def features(self, batch: Batch) -> Tensor | None:
        """[batch, m, patches, dim]: what the tower sees, or has seen; None for rows of text alone."""
        if "images" in batch:
            return self.tower(batch["images"].flatten(0, 1)).unflatten(0, batch["images"].shape[:2])
        if self.training and any(map(is_cut, self.tower.parameters())):  # FSDP2: each process comes by every layer in every pass
            form = self.tower.form
            with uncounted():  # nothing reads what it sees of an empty image
                self.tower(torch.zeros(1, form.channels, form.image_size, form.image_size, device=batch["input_ids"].device))
        return batch.get("image_features")

    def embeddings(self, batch: Batch) -> Tensor:
        """[batch, length, hidden]: those of the tokens, and in the images' places theirs. See `InterleavedRows.batch`."""
        embedded = self.model.get_input_embeddings()(batch["input_ids"])
        features = self.features(batch)
        if features is None:
            return self.touched(embedded)
        visual, slots = self.visual_tokens(features), batch["image_slots"]
        at = (slots - 1).clamp(min=0)[..., None].expand(-1, -1, visual.shape[-1])
        return torch.where((slots > 0)[..., None], visual.gather(1, at).to(embedded.dtype), embedded)

    def touched(self, embedded: Tensor) -> Tensor:
        """The same numbers, with the resampler in the graph: where several processes train, each must come by the same parameters, whether its rows
        have images or not."""
        if not (self.training and torch.is_grad_enabled()):
            return embedded
        nothing = torch.zeros(1, 1, 1, self.resampler.config.dim, device=embedded.device)
        return embedded + 0 * self.visual_tokens(nothing).sum().to(embedded.dtype)

    def hidden_states(self, batch: Batch) -> Tensor:
        """[batch, length, hidden]: the language model's last layer. Rows are padded on the right, where a causal model never looks."""
        return decode(self.model.base_model, inputs_embeds=self.embeddings(batch))

    @torch.no_grad()
    def generate(self, batch: Batch, **settings: Any) -> list[list[int]]:
        """Token ids that go on after each row, whose places count up to its padding. `settings`: of transformers' `generate`."""
        embedded = self.embeddings(batch)
        lengths = batch["attention_mask"].sum(1).tolist() if "attention_mask" in batch else [embedded.shape[1]] * len(embedded)
        found = []
        for row, length in zip(embedded, lengths, strict=True):
            mask = torch.ones(1, length, dtype=torch.int64, device=row.device)
            found.append(self.model.generate(inputs_embeds=row[None, :length], attention_mask=mask, **settings)[0].tolist())
        return found

    def save(self, folder: Path, tokenizer: Any) -> None:
        """See the module's head."""
        save_model_folder(self.model, tokenizer, folder)
        (folder / RESAMPLER).mkdir(exist_ok=True)
        state = {
            f"{part}.{name}": value.detach().contiguous()
            for part in ("resampler", "projection")
            for name, value in getattr(self, part).state_dict().items()
        }
        save_tensors(state, folder / RESAMPLER / "model.safetensors", metadata={"format": "pt"})
        described = {"model_type": "perceiver-resampler", **asdict(self.resampler.config), "output_dim": self.projection.out_features}
        write_json(folder / RESAMPLER / "config.json", described)
        self.tower.save(folder / TOWER)


class Reader:
    """An export to use: `read_interleaved`."""

    def __init__(self, network: InterleavedNetwork, tokenizer: Tokenizer, ids: dict[str, int]) -> None:
        self.network, self.tokenizer, self.ids = network.eval(), tokenizer, ids

    def batch(self, text: str, images: Sequence[Any] = ()) -> Batch:
        """One row: a text with a marker <image> for each image.

        Args:
            images: files, their bytes, or arrays.

        Raises:
            UsageError: there are not as many markers as images. BadInput: an image cannot be read.
        """
        parts, latents = text.split(MARKER), self.network.resampler.config.latents
        if len(parts) != len(images) + 1:
            raise UsageError(f"The text has {len(parts) - 1} markers {MARKER} for {len(images)} images.", "Write one for each image.")
        ids, slots = ([self.ids["bos"]], [0]) if "bos" in self.ids else ([], [])
        for number, part in enumerate(parts):
            if number:
                ids += [self.ids.get("pad", 0)] * latents
                slots += range(1 + (number - 1) * latents, 1 + number * latents)
            tokens = self.tokenizer.encode(part, add_special_tokens=False).ids
            ids += tokens
            slots += [0] * len(tokens)
        batch = {"input_ids": torch.tensor([ids])}
        if images:
            form = self.network.tower.form
            grey = form.channels == 1
            settings = ImageConfig(size=form.image_size, fit="squash", mode="grey" if grey else "rgb", animated="first")
            pixels = decode_records(list(images), lambda content: form_of(content, settings, deep=False))
            batch |= {"image_slots": torch.tensor([slots]), "images": torch.from_numpy(pixels)[None]}
        return batch

    def answer(self, text: str, images: Sequence[Any] = (), max_new_tokens: int = 64) -> str:
        """What the model goes on with, the likeliest token each time, up to its end token."""
        settings = {"max_new_tokens": max_new_tokens, "eos_token_id": self.ids.get("eos"), "pad_token_id": self.ids.get("pad", 0)}
        (found,) = self.network.generate(self.batch(text, images), do_sample=False, **settings)
        kept = found[: found.index(self.ids["eos"])] if self.ids.get("eos") in found else found
        return self.tokenizer.decode(kept)


def read_interleaved(folder: str | Path) -> Reader:
    """An export, to ask it: `read_interleaved(FOLDER).answer("what is <image> ?", ["picture.png"])`.

    Raises:
        BadInput: it is no export of interleaved-lm, or damaged.
    """
    folder = Path(folder)
    tokenizer, names = load_tokenizer(folder, TextConfig())
    return Reader(read_network(folder), tokenizer, special_ids(tokenizer, names))


def read_network(folder: Path) -> InterleavedNetwork:
    """The network that `save` wrote.

    Raises:
        BadInput: a part is missing, damaged, or does not fit the others.
    """
    network = InterleavedNetwork(load_model(folder, AutoModelForCausalLM), load_vision_tower(folder / TOWER), read_resampler_config(folder))
    load_resampler(network, folder)
    return network


def read_resampler_config(folder: Path) -> ResamplerConfig:
    """Raises BadInput where the export's resampler is missing or damaged."""
    path = own_file(folder, f"{RESAMPLER}/config.json")
    stated = read_json(path)
    try:
        sizes = {name: stated[name] for name in ("dim", "depth", "latents", "heads", "dim_head")}
        if not all(isinstance(size, int) and 1 <= size <= 2**16 for size in sizes.values()) or stated["activation"] not in ("gelu", "relu"):
            raise TypeError
        return ResamplerConfig(**sizes, activation=stated["activation"])
    except (KeyError, TypeError):
        raise BadInput("is not the configuration of a resampler.", "Export the model again.", file=path) from None


def load_resampler(network: InterleavedNetwork, folder: Path) -> None:
    """The weights of resampler and projection, into the network. Raises BadInput where they do not fit."""
    path = own_file(folder, f"{RESAMPLER}/model.safetensors")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"cannot be read ({first_line(error)}).", "Export the model again.", file=path) from error
    for part in ("resampler", "projection"):
        own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        try:
            getattr(network, part).load_state_dict(own)
        except RuntimeError as error:
            what = f"does not fit the {part} of its config.json and of the models beside it ({first_line(error)})."
            raise BadInput(what, "Take resampler, language model and vision tower of one export.", file=path) from None


def resampler_of(config: InterleavedLMConfig, tower: VisionTower) -> ResamplerConfig:
    """The shape that the settings ask for."""
    return ResamplerConfig(tower.form.hidden_size, config.resampler_layers, config.latents, config.resampler_heads, config.resampler_head_size)
