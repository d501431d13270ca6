"""Small networks as the official programs write them: what `import` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from headstart.backbones.text import build_masked_lm
from headstart.core.crc32c import crc32c
from headstart.interop.electra_tf1 import to_tf1
from headstart.interop.pre_norm_bert import to_official

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), "the", "boat"]


def moved(model: Any) -> Any:
    """Fresh norms and biases are all alike, and hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def write_vocabulary(folder: Path, *more: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, *more]) + "\n")


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return moved(GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=16, vocab_size=300, activation_function="gelu")))


def as_cerebras(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """What format 1.7 calls them."""
    found: dict[str, Tensor] = {}
    state = model.state_dict()
    for i in range(2):
        here, there = f"transformer.h.{i}.", f"transformer_decoder.layers.{i}."
        for kind in ("weight", "bias"):
            parts = (state[f"{here}attn.c_attn.{kind}"].T if kind == "weight" else state[f"{here}attn.c_attn.{kind}"]).chunk(3)
            found |= {f"{there}self_attn.proj_{name}_dense_layer.{kind}": part.clone() for name, part in zip("qkv", parts, strict=True)}
            for ours, theirs in (("ln_1", "norm1"), ("ln_2", "norm3")):
                found[f"{there}{theirs}.{kind}"] = state[f"{here}{ours}.{kind}"]
            for ours, theirs in (("attn.c_proj", "self_attn.proj_output_dense_layer"), ("mlp.c_fc", "ffn.ffn.0.linear_layer"),
                                 ("mlp.c_proj", "ffn.ffn.1.linear_layer")):  # fmt: skip
                found[f"{there}{theirs}.{kind}"] = state[f"{here}{ours}.{kind}"].T.clone() if kind == "weight" else state[f"{here}{ours}.{kind}"]
    for kind in ("weight", "bias"):
        found[f"transformer_decoder.norm.{kind}"] = found[f"ln_f.{kind}"] = state[f"transformer.ln_f.{kind}"]
    found["embedding_layer.word_embeddings.weight"] = found["lm_head.weight"] = state["transformer.wte.weight"]
    return found | {"embedding_layer.position_embeddings.weight": state["transformer.wpe.weight"]}


def electra(generator: bool = True) -> tuple[ElectraForPreTraining, ElectraForMaskedLM | None, dict[str, np.ndarray]]:
    """(discriminator, generator, the variables of the checkpoint that holds both, those of the optimiser too)."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(VOCABULARY), "embedding_size": 8, "max_position_embeddings": 16}
    main = moved(ElectraForPreTraining(ElectraConfig(hidden_size=12, num_attention_heads=3, num_hidden_layers=2, intermediate_size=20, **sizes)))
    beside = None
    if generator:
        beside = ElectraForMaskedLM(ElectraConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=2, intermediate_size=16, **sizes))
        beside = moved(beside)
        beside.electra.embeddings = main.electra.embeddings
        beside.tie_weights()
    arrays = to_tf1(main.state_dict(), beside.state_dict() if beside is not None else None)
    moments = {f"{name}/adam_{which}": np.full_like(value, 0.5) for name, value in list(arrays.items())[:3] for which in "mv"}
    return main, beside, arrays | moments | {"global_step": np.array(1000, np.int64)}


def pre_norm_bert() -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """(transformers' network, its weights under the official names)."""
    torch.manual_seed(0)
    ids = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
    sizes = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12}
    model = moved(build_masked_lm("roberta-prelayernorm", vocab_size=len(VOCABULARY), max_length=16, dropout=0.0, special_ids=ids, **sizes))
    with torch.no_grad():
        model.get_input_embeddings().weight.data = model.get_output_embeddings().weight.data  # tied
        model.roberta_prelayernorm.embeddings.position_embeddings.weight[:1] = 0  # the row of padding, which no official file has
    pooler = {"bert.pooler.dense_act.weight": torch.zeros(8, 8), "bert.pooler.dense_act.bias": torch.zeros(8)}
    return model, to_official(dict(model.state_dict())) | pooler


def vision(network: nn.Module, *more: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """What MAE's program writes of an encoder, with further tensors."""
    return dict(moved(network).state_dict()) | {name: torch.randn(shape) for name, shape in more}


# --- checkpoint files of TensorFlow -----------------------------------------------------------------------------------------------------------


def number(value: int) -> bytes:
    found = b""
    while value >= 0x80:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def field(place: int, value: int | bytes) -> bytes:
    return number(place << 3 | 2) + number(len(value)) + value if isinstance(value, bytes) else number(place << 3) + number(value)


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def entry(shape: tuple[int, ...], offset: int, data: bytes, dtype: int = 1, **other: int) -> bytes:
    """A BundleEntryProto; `other` replaces shard, offset, size or crc."""
    axes = b"".join(field(2, field(1, size)) for size in shape)
    said = {"shard": 0, "offset": offset, "size": len(data), "crc": masked(data)} | other
    numbers = field(3, said["shard"]) + field(4, said["offset"]) + field(5, said["size"])
    return field(1, dtype) + field(2, axes) + numbers + number(6 << 3 | 5) + said["crc"].to_bytes(4, "little")


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """Of a table: every key whole, one restart."""
    body = b"".join(number(0) + number(len(key)) + number(len(value)) + key + value for key, value in entries.items())
    body += (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0"  # not compressed
    return body + masked(body).to_bytes(4, "little")


def table(*parts: Mapping[bytes, bytes]) -> bytes:
    """A block for each part."""
    data, meta, handles = b"", block({}), {}
    for entries in parts:
        handles[max(entries)] = number(len(data)) + number(len(block(entries)) - 5)
        data += block(entries)
    index = block(handles)
    footer = number(len(data)) + number(len(meta) - 5) + number(len(data) + len(meta)) + number(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


HEADER = field(1, 1) + field(3, field(1, 1))


def write_bundle(prefix: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A checkpoint as TensorFlow's Saver writes it."""
    types, data, entries = {"f": 1, "i": 9}, b"", {b"": HEADER}
    for name in sorted(arrays):
        raw = arrays[name].tobytes()
        entries[name.encode()] = entry(arrays[name].shape, len(data), raw, types[arrays[name].dtype.kind])
        data += raw
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
