"""Tables of settings, made from the dataclasses: name, default with what the flag takes, and the docstring under the field."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

from headstart import interventions
from headstart.core.config import field_docs, plain, takes
from headstart.data.image.config import ImageConfig
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.text.config import TextConfig
from headstart.data.text.epoch_config import EpochsConfig
from headstart.engine.budget import Budget
from headstart.engine.config import OptimizerConfig, TrainerConfig
from headstart.engine.schedules import ScheduleConfig
from headstart.tasks import recipe
from headstart.tasks.config import FinetuneConfig, QuestionAnsweringConfig, RegulariserConfig, TaggingConfig
from headstart.tasks.dense_config import CONFIGS, DenseConfig, OneViewConfig
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.reranking_config import RerankingConfig
from headstart.verbs._finetune_settings import Common, FinetuneSettings
from headstart.verbs.config import MixtureConfig, PretrainConfig, ProbeConfig, flag
from tools.pages.results import cell


def default(field: dataclasses.Field[Any], instance: Any) -> str:
    """The default as the command line would write it; a dash for none."""
    value = plain(getattr(instance, field.name))
    if value is None or value == [] or value == "":
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{' '.join(map(str, value)) if isinstance(value, list) else value}`"


def table(cls: type, prefix: str = "", names: list[str] | None = None) -> str:
    """A Markdown table of the leaf fields of a dataclass.

    Args:
        prefix: of the flag: "optimizer" for `--optimizer.learning-rate`.
        names: which fields; None: all.

    Raises:
        ValueError: a field has no docstring.
    """
    docs, hints, instance = field_docs(cls), get_type_hints(cls), cls()
    rows = ["| flag | default | what it is |", "| --- | --- | --- |"]
    for field in dataclasses.fields(cls):
        if (names is not None and field.name not in names) or dataclasses.is_dataclass(getattr(instance, field.name)):
            continue
        if field.name not in docs:
            raise ValueError(f"{cls.__name__}.{field.name} has no docstring")
        name = flag(f"{prefix}.{field.name}" if prefix else field.name)
        standard = f"{default(field, instance)}<br><small>{takes(hints[field.name], mark='`')}</small>"
        rows.append(f"| `--{name}` | {cell(standard)} | {cell(docs[field.name])} |")
    return "\n".join(rows)


def leaves(cls: type) -> list[str]:
    """The fields of a dataclass itself, groups and fields of its bases left out."""
    own = [field.name for field in dataclasses.fields(cls) if field.name in cls.__annotations__ and field.name != "method"]
    return [name for name in own if not dataclasses.is_dataclass(getattr(cls(), name))]


PRETRAIN_GROUPS: dict[str, tuple[type, str]] = {
    "budget": (Budget, "When a run ends: give exactly one."),
    "optimizer": (OptimizerConfig, "The update."),
    "schedule": (ScheduleConfig, "How the learning rate moves."),
    "trainer": (TrainerConfig, "How the run is computed, watched and kept."),
    "probe": (ProbeConfig, "A labelled set that the run measures itself on."),
    "mixture": (MixtureConfig, "Several entries of `--data`."),
    "epochs": (EpochsConfig, "Epochs that are drawn from the parts of `--data` ([stability gap](methods/stability_gap.md))."),
    "text": (TextConfig, "How raw text becomes a store."),
    "image": (ImageConfig, "How images become a store (methods on images)."),
}


def interleaved_block() -> str:
    """How interleaved documents become a store."""
    return table(InterleavedConfig, "interleaved")


def pretrain_block() -> str:
    """Every flag of `pretrain` but those of a method."""
    parts = ["### Common\n\n" + table(PretrainConfig, names=leaves(PretrainConfig))]
    for name, (cls, what) in PRETRAIN_GROUPS.items():
        parts.append(f"### `--{name}.`\n\n{what}\n\n{table(cls, name)}")
    for entry in interventions.settings():
        what = f"Around any method: [{entry.card.title}](methods/{entry.card.slug}.md)."
        parts.append(f"### `--{flag(entry.group)}.`\n\n{what}\n\n{table(entry.Config, entry.group)}")
    return "\n\n".join(parts)


def finetune_block() -> str:
    """Every flag of `finetune`."""
    return (
        f"### What is trained on what\n\n{table(FinetuneSettings, names=[*leaves(Common), *leaves(FinetuneSettings)])}\n\n"
        f"### How\n\n{inspect.getdoc(recipe)}\n\nThe defaults below are those of `electra`.\n\n{table(FinetuneConfig)}\n\n"
        f"### `--regulariser.`\n\n{(RegulariserConfig.__doc__ or '').splitlines()[0]} Also of `image-classification`; what each is: "
        f"[self-distillation](methods/self_distill.md#what-it-is-compared-with).\n\n{table(RegulariserConfig, 'regulariser')}\n\n"
        f"### `--qa.`\n\n{(QuestionAnsweringConfig.__doc__ or '').splitlines()[0]}\n\n{table(QuestionAnsweringConfig, 'qa')}\n\n"
        f"### `--tagging.`\n\n{(TaggingConfig.__doc__ or '').splitlines()[0]}\n\n{table(TaggingConfig, 'tagging')}"
    )


def reranking_block() -> str:
    """The flags of `finetune reranking` that are its own."""
    shared = "the first table of [`finetune`](../settings.md#finetune), without `--recipe`, and these"
    return f"`finetune reranking` takes {shared}.\n\n{table(RerankingConfig)}"


def image_finetune_block() -> str:
    """The flags of `finetune image-classification` that are its own."""
    shared = "the first table above, without `--recipe`, `--regulariser.`, and these"
    return f"`finetune image-classification` takes {shared}.\n\n{table(ImageFinetuneConfig)}"


def dense_finetune_block() -> str:
    """The flags of the dense tasks: those of all, those on one image, those of each."""
    one_view = [name for name, cls in CONFIGS.items() if issubclass(cls, OneViewConfig)]
    parts = [
        f"The dense tasks take the first table of `finetune`, without `--recipe`, and these.\n\n{table(DenseConfig)}",
        f"On one image ({', '.join(f'`{name}`' for name in one_view)}):\n\n{table(OneViewConfig, names=leaves(OneViewConfig))}",
    ]
    return "\n\n".join([*parts, *(f"Of `{name}`:\n\n{table(cls, names=leaves(cls))}" for name, cls in CONFIGS.items())])
