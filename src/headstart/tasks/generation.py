"""Conditional generation: a decoder is fine-tuned on pairs of source and target, and writes a target for each test source.

    result = finetune_generation("runs/causal-lm-tiny-0/export", "train.jsonl", "test.jsonl")

One sequence = source, line feed, target, end of text; the target is tokenised apart from the source, and only its tokens and the end are learned
(GPT-2's data-to-text practice; SPDF's). A sparse model learns with all its weights unless `sparse` keeps its masks: zeros get gradients from the
first step. What decides is the log-probability of the targets: BLEU of small networks is near 0 and noisy.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from headstart.core.errors import BadInput, MissingDependency, UsageError
from headstart.core.rng import mix_int
from headstart.engine.device import use_device
from headstart.engine.optim import OptimizerConfig, build_optimizer, clip_gradients, set_learning_rate
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import Precision, autocast, precision_of
from headstart.interop.masks import read_masks, write_masks
from headstart.interop.transformers_io import load_decoder, save_model_folder
from headstart.interventions.spdf.hold import hold_gradients, hold_moments, hold_weights
from headstart.objectives.projected_loss import projected_lm_loss
from headstart.objectives.token_loss import gather_positions, token_nll
from headstart.tasks.arms import Say, Trained, of_each_seed, refuse_choosing_on_test, run_arms, seeds_and_draws, stuck_warnings
from headstart.tasks.epoch_loss import EpochLoss
from headstart.tasks.generation_config import GenerationConfig, check_generation
from headstart.tasks.generation_data import GenerationData, Item, read_generation, refuse_shared, write_outputs
from headstart.tasks.generation_metrics import SCORER, bleu, rouge_l, slot_error
from headstart.tasks.kept import Kept
from headstart.tasks.leaks import find_overlap, training_leaks
from headstart.tasks.metrics import Records, without_each
from headstart.tasks.result import PRETRAINED, Result
from headstart.tasks.rows import DeviceRows, Rows, epoch_batches, make_rows

METRIC = "log_prob"
EVAL_BATCH = 64
DECODE_ROWS = 512
"""Rows times beams that are decoded at once."""


@dataclass
class Decoder:
    """A causal language model and what is needed to feed it."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    separator: list[int]
    end: int
    length: int | None
    """Positions that the network has; None: no limit of its own."""

    @classmethod
    def load(cls, folder: str | Path, fresh: bool = False, seed: int = 0, dropout: float | None = None) -> Decoder:
        """Of a transformers folder; `fresh`: the same network from random weights. Raises BadInput where it holds no decoder."""
        model, tokenizer = load_decoder(folder, fresh, seed, dropout)
        end = model.config.eos_token_id if model.config.eos_token_id is not None else tokenizer.eos_token_id
        end = end[0] if isinstance(end, list) else end
        if end is None:
            raise BadInput("has no token that ends a text", "Set eos_token_id in its config.json.", file=folder)
        separator = tokenizer.encode("\n", add_special_tokens=False) or [end]  # WordPiece has no line feed
        positions = getattr(model.config, "n_positions", None) or getattr(model.config, "max_position_embeddings", None)
        return cls(model, tokenizer, separator, end, positions)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)] if texts else []


# --- rows -------------------------------------------------------------------------------------------------------------------------------------


def example(source: list[int], target: list[int], separator: list[int], end: int, loss_on_source: bool = False) -> tuple[list[int], int]:
    """(token ids of source, separator, target and end; the place of the first token that is learned: all after it are too)."""
    before = source + separator
    return [*before, *target, end], 1 if loss_on_source else len(before)


def make_pairs(decoder: Decoder, data: GenerationData, config: GenerationConfig, targets_per_source: int | None = None) -> Rows:
    """A row for each source with each of its targets. Row values: `start`, the place of the first learned token; `item`; `bytes` of the target.

    Raises:
        BadInput: one has no room in the network.
    """
    room = length_of(decoder, config)
    targets = [item.targets[:targets_per_source] for item in data.items]
    encoded = iter(decoder.ids(list(chain.from_iterable(targets))))
    ids: list[list[int]] = []
    values: dict[str, list[int]] = {"start": [], "item": [], "bytes": []}
    for number, (item, source, context) in enumerate(zip(data.items, *prompt_parts(decoder, data.items), strict=True)):
        for target in targets[number]:
            pieces = next(encoded)
            prompt = fit(source, context, decoder.separator, None if room is None else room - len(decoder.separator) - len(pieces) - 1)
            if prompt is None:
                needed = len(source) + len(decoder.separator) + len(pieces) + 1
                raise BadInput(
                    f"takes {needed} tokens with its target, the network has {room} positions.",
                    "Shorten it, pre-train with a longer --method.sequence-length, or name a --context-field, which may be cut.",
                    file=data.source or None,
                    record=item.record,
                )
            row, start = example(prompt, pieces, decoder.separator, decoder.end, config.loss_on_source)
            ids.append(row)
            for name, value in (("start", start), ("item", number), ("bytes", len(target.encode()))):
                values[name].append(value)
    return make_rows(ids, row_values=values)


def prompt_parts(decoder: Decoder, items: Sequence[Item]) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of each source, and of each context (none where there is none)."""
    contexts = decoder.ids([item.context or "" for item in items])
    return decoder.ids([item.source for item in items]), contexts


def fit(source: list[int], context: list[int], separator: list[int], room: int | None) -> list[int] | None:
    """Source, separator, context in at most `room` tokens: the context is cut from the left. None where the source alone has no room."""
    if not context:
        return source if room is None or len(source) <= room else None
    left = len(context) if room is None else room - len(source) - len(separator)
    if left < 0:
        return source if room is not None and len(source) <= room else None
    return source + separator + context[len(context) - min(left, len(context)) :]


def length_of(decoder: Decoder, config: GenerationConfig) -> int | None:
    """Tokens that source and target may have together."""
    limits = [limit for limit in (decoder.length, config.max_length) if limit is not None]
    return min(limits, default=None)


# --- loss ---------------------------------------------------------------------------------------------------------------------------------------


class Pairs:
    """Rows on a device, as batches of hidden states at the places that predict a learned token."""

    def __init__(self, rows: Rows, decoder: Decoder, device: torch.device) -> None:
        self.rows = rows
        self.source = DeviceRows(rows, decoder.end, device)
        self.counts = rows.lengths - rows.row_values["start"]  # learned tokens of each row

    def states(self, model: Any, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Of the rows named: hidden states [batch, most, dim], their targets int64 [batch, most], and bool [batch, most], which of them count."""
        batch = self.source.batch(index)
        ids = batch["input_ids"]
        embedded = model.get_input_embeddings()(ids)  # of ids GPT-2 would ask the device in each step whether they are padded
        hidden = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state  # padding is on the right, where no token looks
        place = torch.arange(int(self.counts[index].max()), device=ids.device)
        counted = place < torch.from_numpy(self.counts[index]).to(ids.device, non_blocking=True)[:, None]
        at = torch.where(counted, batch["start"][:, None] + place, 1)
        return gather_positions(hidden, at - 1), ids.gather(1, at), counted


def pair_loss(model: Any, pairs: Pairs, index: np.ndarray, tokens: int) -> Tensor:
    """Sum of -log p of the learned tokens of these rows / `tokens`, those of the whole batch; in nats."""
    hidden, targets, counted = pairs.states(model, index)
    output = model.get_output_embeddings()
    mean = projected_lm_loss(hidden, output.weight, output.bias, targets, counted.float(), eps=0.0)
    return mean * (int(pairs.counts[index].sum()) / tokens)


@torch.no_grad()
def pair_nll(model: Any, pairs: Pairs, device: torch.device, precision: Precision) -> np.ndarray:
    """float64 [rows]: -log p of the learned tokens of each row, summed, in nats."""
    order = np.argsort(pairs.rows.lengths, kind="stable")
    sums = np.zeros(len(order))
    model.eval()
    for index in np.split(order, range(EVAL_BATCH, len(order), EVAL_BATCH)):
        with autocast(device, precision):
            hidden, targets, counted = pairs.states(model, index)
            logits = model.get_output_embeddings()(hidden)
        sums[index] = (token_nll(logits, targets) * counted).double().sum(1).cpu().numpy()
    return sums


# --- training -----------------------------------------------------------------------------------------------------------------------------------


def train_pairs(
    decoder: Decoder,
    rows: Rows,
    config: GenerationConfig,
    learning_rate: float,
    seed: int,
    device: torch.device,
    masks: dict[str, Tensor] | None = None,
    say: Say = lambda text: None,
) -> tuple[float, int]:
    """Trains the decoder in place: AdamW with no moments, linear warm-up, cosine to 0.

    Args:
        masks: parameter name -> bool, True where a weight is kept; the others stay zero.

    Returns:
        the mean loss a token over the last epoch, and the number of steps.
    """
    model = decoder.model.to(device).train()
    a_batch = min(config.batch, len(rows))
    an_epoch = math.ceil(len(rows) / a_batch)
    total = max(1, int(an_epoch * config.epochs))
    schedule = ScheduleConfig(name="cosine", warmup_share=config.warmup_share)
    precision = precision_of(config, device)
    pairs = Pairs(rows, decoder, device)
    held = held_weights(model, masks or {}, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mix_int(seed) >> 1)
        settings = OptimizerConfig(
            learning_rate=learning_rate, beta2=config.beta2, weight_decay=config.weight_decay, clip_norm=config.clip_norm, layer_decay=1.0
        )
        optimizer = build_optimizer(model, settings)
        hold_weights(*held)
        losses = EpochLoss(total, learning_rate, device, say)
        for step in range(total):
            if step % an_epoch == 0:
                batches = epoch_batches(pairs.rows.lengths, a_batch, seed, step // an_epoch)
                losses.begin_epoch()
            chosen = batches[step % an_epoch]
            tokens = int(pairs.counts[chosen].sum())
            set_learning_rate(optimizer, learning_rate * multiplier(step, total, schedule))
            optimizer.zero_grad(set_to_none=True)
            for part in np.array_split(chosen, math.ceil(len(chosen) / (config.micro_batch or len(chosen)))):
                with autocast(device, precision):
                    loss = pair_loss(model, pairs, part, tokens)
                loss.backward()
                losses.add(loss)
            hold_gradients(*held)
            clip_gradients(model.parameters(), config.clip_norm)
            optimizer.step()
            hold_weights(*held)
            hold_moments(optimizer, *held)
            losses.end_step(step)
    model.eval()
    return losses.mean(), total


def held_weights(model: nn.Module, masks: dict[str, Tensor], device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """(parameters that stay sparse, of each a bool mask that is True where it is zero)."""
    named = dict(model.named_parameters())
    return [named[name] for name in masks], [~mask.to(device) for mask in masks.values()]


def masks_of(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """The masks of a sparse export.

    Raises:
        UsageError: it has none. BadInput: they are not those of its weights.
    """
    masks = read_masks(folder)
    if not masks:
        raise UsageError(f"{folder} has no masks.safetensors, so nothing of it is sparse.", "Leave out --sparse.")
    named = dict(model.named_parameters())
    if strange := [name for name, mask in masks.items() if name not in named or named[name].shape != mask.shape]:
        raise BadInput(f"has a mask for {strange[0]}, which the model does not have", "Copy the export again.", file=folder / "masks.safetensors")
    different = sum(int((named[name].detach()[~mask] != 0).sum()) for name, mask in masks.items())
    if different:
        what = f"{different:,} weights that its masks hold at zero are not zero: the model was trained on without them"
        raise BadInput(what, "Leave out --sparse.", file=folder / "masks.safetensors")
    return masks



# --- writing ------------------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def write(decoder: Decoder, data: GenerationData, config: GenerationConfig, device: torch.device) -> list[str]:
    """One output a source: greedy, or by beam search. All sources of like length at once, padded on the left, with a key/value cache."""
    room = length_of(decoder, config)
    kept = None if room is None else room - len(decoder.separator) - min(config.max_new_tokens, room // 2)
    prompts = []
    for item, source, context in zip(data.items, *prompt_parts(decoder, data.items), strict=True):
        prompt = fit(source, context, decoder.separator, kept)
        if prompt is None:
            prompt = fit(source, [], decoder.separator, None if room is None else room - len(decoder.separator) - 1)
        if prompt is None:
            what = f"takes {len(source)} tokens, the network has {room} positions."
            raise BadInput(what, "Shorten it, or pre-train with a longer --method.sequence-length.", file=data.source or None, record=item.record)
        prompts.append(prompt + decoder.separator)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    outputs = [""] * len(prompts)
    model = decoder.model.to(device).eval()
    rows = max(1, DECODE_ROWS // config.beams)
    for part in (order[start : start + rows] for start in range(0, len(order), rows)):
        longest = len(prompts[part[-1]])
        new = config.max_new_tokens if room is None else min(config.max_new_tokens, room - longest)
        ids = torch.tensor([[decoder.end] * (longest - len(prompts[i])) + prompts[i] for i in part], device=device)
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in part], device=device)
        with autocast(device, precision_of(config, device)):
            found = model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=config.beams,
                length_penalty=config.length_penalty,
                no_repeat_ngram_size=config.no_repeat,
                max_new_tokens=new,
                eos_token_id=decoder.end,
                pad_token_id=decoder.end,
                use_cache=True,
            )
        for i, row in zip(part, found[:, longest:].tolist(), strict=True):
            outputs[i] = str(decoder.tokenizer.decode(row[: row.index(decoder.end)] if decoder.end in row else row, skip_special_tokens=True)).strip()
    return outputs


def loss_scores(nll: np.ndarray, rows: Rows) -> dict[str, float]:
    """`log_prob`: of a token, in nats; `bits_per_byte`: of the targets' UTF-8."""
    tokens = int((rows.lengths - rows.row_values["start"]).sum())
    return {METRIC: -float(nll.sum()) / tokens, "bits_per_byte": float(nll.sum()) / math.log(2) / int(rows.row_values["bytes"].sum())}


def loss_records(nll: np.ndarray, rows: Rows) -> Records | None:
    """What each source, with all its targets, adds to `log_prob`."""
    item = rows.row_values["item"]
    sums = np.stack([np.bincount(item, -nll), np.bincount(item, rows.lengths - rows.row_values["start"])])  # [2, sources]
    return without_each(lambda kept: float(np.divide(*sums[:, kept].sum(1))), sums.shape[1])


def output_scores(outputs: Sequence[str], data: GenerationData) -> dict[str, float]:
    """BLEU and ROUGE-L against all targets of each source, and the slot error of meaning representations."""
    references = [item.targets for item in data.items]
    found = {"bleu": bleu(outputs, references), "rouge_l": rouge_l(outputs, references)}
    if any(item.values for item in data.items):
        found["slot_error"] = slot_error(outputs, [item.values for item in data.items])
    return found


# --- the whole ----------------------------------------------------------------------------------------------------------------------------------


def finetune_generation(
    model_folder: str | Path,
    train: Any,
    test: Any,
    dev: Any = None,
    config: GenerationConfig | None = None,
    seeds: int | Sequence[int] = 3,
    baseline: bool = True,
    report: Say | None = None,
    out: str | Path | None = None,
    kept: Kept | None = None,
) -> Result:
    """Fine-tunes the decoder of a transformers folder on pairs, and scores it on the test file.

    Args:
        train, test, dev: a file, or a `GenerationData`; of `train` also a list, one for each seed. dev is needed to try several learning rates.
        baseline: also train the same network from random initialisation.
        out: a folder for result.json, the model, its outputs and references.
        kept: trainings of an earlier call into `out`, which are not made again.

    Raises:
        BadInput: a file or the folder cannot be used. UsageError: a setting is wrong. Diverged: a loss was not finite.
    """
    config = config or GenerationConfig()
    say = report or (lambda line: None)
    check_generation(config)
    refuse_choosing_on_test(config.rates, dev)
    if config.generate:
        refuse_no_scorers()
    seed_list, draws = seeds_and_draws(seeds, train, "training files")
    trains = [read_generation(draw, config) for draw in draws]
    parts = {"test": read_generation(test, config)} | ({} if dev is None else {"dev": read_generation(dev, config)})
    for part in parts.values():
        for of_seed in trains:
            refuse_shared(of_seed, part)
    decoder = Decoder.load(model_folder, dropout=config.dropout)
    masks = masks_of(Path(model_folder), decoder.model) if config.sparse else None
    train_rows = [make_pairs(decoder, part, config, config.targets_per_source) for part in trains]
    scored = dataclasses.replace(config, loss_on_source=False)
    rows = {name: make_pairs(decoder, part, scored) for name, part in parts.items()}
    bench = Bench(decoder, Path(model_folder), config, masks, of_each_seed(seed_list, train_rows), rows, parts["test"], use_device(config.device))
    arms, first = run_arms(bench.train, seed_list, config.rates, METRIC, baseline, say, kept=kept)
    tested = parts["test"].leak_texts()
    beside = find_overlap(tested, chain.from_iterable(part.leak_texts() for part in trains)).sentence("the training file")
    counts = {"train": len(trains[0]), "train_pairs": len(train_rows[0]), "scorer": SCORER if config.generate else None}
    result = Result(
        "generation",
        METRIC,
        str(model_folder),
        arms,
        counts | {name: len(part) for name, part in parts.items()} | {f"{name}_pairs": part.n_pairs for name, part in parts.items()},
        [beside, *training_leaks(tested, Path(model_folder))],
        stuck_warnings(arms, "Give more epochs or a longer pre-training."),
        dataclasses.asdict(config),
    )
    if out is not None:

        def write(place: Path) -> None:
            tuned = first()
            save_model_folder(tuned.model, tuned.tokenizer, place)
            if masks:
                write_masks(place, masks)  # a further training can keep them too
            if config.generate:
                write_outputs(Path(out), bench.written[PRETRAINED, seed_list[0], arms[0].learning_rate], parts["test"])

        result.save(out, write, kept)
    return result


@dataclass
class Bench:
    """Everything that the trainings of one `finetune_generation` share.

    Attributes:
        masks: see `train_pairs`.
        rows: part ("test", "dev") -> its pairs as rows.
        written: (arm, seed, learning rate) -> the outputs for the test sources.
    """

    decoder: Decoder
    folder: Path
    config: GenerationConfig
    masks: dict[str, Tensor] | None
    trains: dict[int, Rows]  # of each seed
    rows: dict[str, Rows]
    test: GenerationData
    device: torch.device
    written: dict[tuple[str, int, float], list[str]] = dataclasses.field(default_factory=dict)

    def train(self, arm: str, seed: int, learning_rate: float, say: Say) -> Trained[Decoder]:
        """One training, its scores and what it writes."""
        config, device = self.config, self.device
        if arm == PRETRAINED:
            mine = dataclasses.replace(self.decoder, model=copy.deepcopy(self.decoder.model))
        else:
            mine = Decoder.load(self.folder, fresh=True, seed=seed, dropout=config.dropout)
        loss, steps = train_pairs(mine, self.trains[seed], config, learning_rate, seed, device, self.masks, say)
        nll = {
            name: pair_nll(mine.model, Pairs(of_part, mine, device), device, precision_of(config, device)) for name, of_part in self.rows.items()
        }
        metrics = {name: loss_scores(nll[name], of_part) for name, of_part in self.rows.items()}
        stuck = None
        if config.generate:
            outputs = self.written[arm, seed, learning_rate] = write(mine, self.test, config, device)
            metrics["test"] |= output_scores(outputs, self.test)
            stuck = "it writes the same for every source" if len(outputs) > 1 and len(set(outputs)) == 1 else None
        return Trained(mine, metrics, loss, steps, stuck, loss_records(nll["test"], self.rows["test"]))


def refuse_no_scorers() -> None:
    """Raises MissingDependency before anything is trained."""
    for module, package in (("sacrebleu", "sacrebleu"), ("rouge_score", "rouge-score")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependency(package, "generation", "Scoring generated texts")
