"""ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators (Clark et al., ICLR 2020, arXiv 2003.10555).

- A small generator fills masked positions with samples; the discriminator says for every token whether it is the original. Every position gives a
  signal, not only the masked 15 %, so it learns more per FLOP than masked language modelling. Only the discriminator is kept.
- The generator's head runs at the chosen positions only, one softmax serves loss and another the samples, and full rows carry no attention mask:
  no [batch, length, vocab] tensor exists (all_tokens_mlm and the causal start apart, which predict every token by definition).
- At small budgets joint training learns nothing: the generator sits on the unigram plateau, and a fresh discriminator only learns the base rate. The
  `tiny` preset therefore starts causally, trains the generator alone, and copies it into the discriminator (docs/methods/electra.md).
- Nothing in `loss` waits for the device or depends on the data's shape: the whole step can be captured in a CUDA graph.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from headstart.backbones.text import encode, mlm_head, mlm_logits
from headstart.core.config import checked, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.rows import Rows
from headstart.data.text.store import TextStore
from headstart.data.text.tokenizer import load_tokenizer, require_specials, write_vocabulary
from headstart.engine.method import Batch, Context, Phase
from headstart.engine.text_method import TextMethod
from headstart.interop.transformers_io import save_model_folder
from headstart.methods.electra import arms, network
from headstart.methods.electra.config import SETTINGS, ElectraConfig, check, start_lengths
from headstart.methods.electra.rows import electra_rows
from headstart.objectives.masking import apply_masking, choose_positions, masking_slots, scatter
from headstart.objectives.projected_loss import next_token_loss
from headstart.objectives.ranking import auc
from headstart.objectives.token_loss import gather_positions, masked_lm_loss, sample_tokens, token_nll, weighted_mean

logger = logging.getLogger(__name__)

MASK_SHARE = 0.85
"""Of the chosen positions so many show [MASK]; the others show the original. Never a random token."""
_DISCRIMINATOR, _GENERATOR = "discriminator", "generator"  # folders of an export; downstream use loads the first
_SETTINGS_FILE = "electra.json"
_MEMORY = 0.98  # of the running means: about the last 50 steps


class Masked(NamedTuple):
    """A masked batch; N slots a row, those of weight 0 point to position 0."""

    ids: Tensor  # int64 [batch, length]
    positions: Tensor  # int64 [batch, N]
    weights: Tensor  # float32 [batch, N]
    targets: Tensor  # int64 [batch, N], the originals


class Generated(NamedTuple):
    """What the generator makes of a masked batch."""

    losses: dict[str, Tensor]  # mlm_loss with gradient (but for the uniform generator), mlm_loss_hidden without
    ids: Tensor  # int64 [batch, length], the corrupted text
    written: Tensor  # bool [batch, length], positions that a sample was written to
    sampled: Tensor  # int64 [batch, N]


class Electra(TextMethod):
    """Generator and discriminator, or the two networks of an ablation arm."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    plateau_metric = "mlm_loss_hidden"  # slots that show the original would let a copying generator look better than the plateau

    config: ElectraConfig
    generator: Any  # a transformers ForMaskedLM, or None
    main: Any  # what is kept: a discriminator, or a ForMaskedLM in the arms whose main network predicts tokens
    maskable: Tensor
    hidden_loss: Tensor
    recall: Tensor
    copied: Tensor

    def __init__(self, config: ElectraConfig, store: TextStore, init: Path | None = None) -> None:
        if init is not None:
            config = network.config_of_folder(init, config, store.vocab_size)
        check(config)
        super().__init__(config, store, init)
        self.continues = init is not None
        require_specials(self.special_ids, ("pad", "cls", "sep", "mask"))
        if init is None:
            self.generator, self.main = network.build(config, self.vocab_size, self.special_ids)
        else:
            self.generator, self.main = network.load(init, config, self.vocab_size, self.special_ids)
        self.copy_gate: nn.Linear | None = None
        if config.arm == "all_tokens_mlm":
            self.copy_gate = nn.Linear(config.hidden_size, 1)
            nn.init.xavier_uniform_(self.copy_gate.weight)
            nn.init.zeros_(self.copy_gate.bias)
            if init is not None:
                network.load_beside(self.copy_gate, init / network.COPY_GATE_FILE)
        self.mask_id = self.special_ids["mask"]
        maskable = torch.ones(self.vocab_size, dtype=torch.bool)
        maskable[[i for name, i in self.special_ids.items() if name != "unk"]] = False
        self.register_buffer("maskable", maskable, persistent=False)
        self.register_buffer("hidden_loss", torch.tensor(float(self.unigram_entropy)))  # running mean of mlm_loss_hidden
        self.register_buffer("recall", torch.tensor(1.0))  # running mean of disc_recall
        self.register_buffer("copied", torch.tensor(False))  # the generator's weights went into the main network

    @classmethod
    def rows(cls, store: TextStore, config: ElectraConfig, split: Literal["train", "held_out"] = "train") -> Rows:
        check(config)
        return electra_rows(store, config, split)

    @classmethod
    def settings_of(cls, init: Path, config: ElectraConfig) -> dict[str, Any]:
        found = network.config_of_folder(init, config)
        return {name: getattr(found, name) for name in network.OF_FOLDER} | {"causal_start": 0, "generator_start": 0}

    def predicted_per_row(self) -> float:
        """Of the generator, also after a causal start: that brings the generator forward, and the discriminator learns after it."""
        return self.config.mask_ratio * self.config.sequence_length

    # --- phases --------------------------------------------------------------------------------------------------------

    @property
    def token_model(self) -> Any:
        """The network with the vocabulary head that the start phases train."""
        return self.main if self.generator is None else self.generator

    @property
    def starts_in_stages(self) -> bool:
        return not self.continues and self.generator is not None and self.config.generator_start > 0

    def phases(self, total_steps: int) -> list[Phase]:
        """[causal] -> [generator alone] -> joint. A run that continues from trained weights is joint from its first step."""
        causal, generator = (0, 0) if self.continues else start_lengths(self.config, total_steps)
        if self.config.uniform_generator:
            causal = 0
        phases = [Phase("causal", causal)] if causal else []
        if generator:
            phases.append(Phase("generator", generator))
        return [*phases, Phase("joint", on_start=self._start_joint if generator else None)]

    def _start_joint(self) -> None:
        margin = self.unigram_entropy - float(self.hidden_loss)
        left = margin >= self.config.plateau_margin
        logger.log(
            logging.INFO if left else logging.WARNING,
            "generator's loss %.2f, %.2f nats %s the unigram entropy (%.2f below wanted): %s",
            float(self.hidden_loss),
            abs(margin),
            "below" if margin >= 0 else "above",
            self.config.plateau_margin,
            "off the plateau" if left else "still on the plateau: a larger budget would help",
        )
        self._copy_generator()
        self.copied.fill_(True)

    def _copy_generator(self) -> None:
        network.copy_encoder(self.generator.base_model, self.main.base_model)

    # --- the loss ------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """gen_weight * L_MLM + disc_weight * L_Disc (section 2), both means over the whole global batch, however it is cut.

        Scalars: loss; mlm_loss (over all slots) and mlm_loss_hidden (over the slots that show [MASK]); disc_loss, replaced_share, disc_accuracy,
        disc_recall where there is a discriminator; main_loss in the arms whose main network predicts tokens; causal_loss in the causal phase.
        """
        if ctx.phase == "causal":
            loss, predicted = self.causal_loss(batch)
            return {"loss": loss, "causal_loss": loss.detach(), "weight": predicted}
        masked = self.mask(batch, ctx.rng)
        if self.config.arm == "mlm" or ctx.phase == "generator":
            losses = self.mlm_losses(self.token_model, batch, masked)[0]
            return {"loss": self.config.gen_weight * losses["mlm_loss"], **_detached(losses), "weight": masked.weights.sum()}
        generated = self.generate(batch, masked, ctx.rng)
        main = self.main_losses(batch, masked, generated)
        losses = _shared(generated.losses, ctx.share("slots")) | _shared(main, ctx.share("main"))
        return {"loss": self._total(losses), **_detached(losses)}

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        """Of the joint phase: the slots that L_MLM is the mean over, and the tokens that the main network's loss is the mean over."""
        if ctx.phase != "joint" or self.config.arm == "mlm":
            return None
        masked = self.mask(batch, ctx.rng)
        slots = masked.weights.sum()
        if self.config.arm == "replace_mlm":
            return {"slots": slots, "main": slots}
        if self.config.arm == "electra_15":
            written = scatter(batch["input_ids"], masked.positions, masked.weights, masked.targets)[1]
            return {"slots": slots, "main": written.sum()}
        return {"slots": slots, "main": _count(batch["input_ids"], batch.get("attention_mask"))}

    def causal_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean -log p(next token) over the tokens that are not padding, and their number."""
        model = self.token_model
        before, output = mlm_head(model)
        hidden = before(encode(model.base_model, batch, causal=True))
        return next_token_loss(hidden, output, batch["input_ids"], batch.get("attention_mask"))

    def mask(self, batch: Batch, rng: Rng, mask_share: float = MASK_SHARE) -> Masked:
        """Chooses the positions and hides them."""
        ids, padding = batch["input_ids"], batch.get("attention_mask")
        candidates = self.maskable[ids]
        if padding is None:
            n_tokens = torch.full_like(ids[:, 0], ids.shape[1])
        else:
            candidates = candidates & padding
            n_tokens = padding.sum(1)
        ratio = self.config.mask_ratio
        positions, weights = choose_positions(
            rng, candidates, n_tokens, ratio, masking_slots(ratio, ids.shape[1]), self.config.mask_sampling == "with_replacement"
        )
        shown = apply_masking(ids, positions, weights, self.mask_id, rng, mask_share)
        return Masked(shown, positions, weights, ids.gather(1, positions))

    def mlm_losses(self, model: Any, batch: Batch, masked: Masked) -> tuple[dict[str, Tensor], Tensor]:
        """L_MLM of a network on the masked text, and its logits [batch, N, vocab] (step 1 of the spec's corruption)."""
        hidden = encode(model.base_model, batch | {"input_ids": masked.ids})
        logits = mlm_logits(model, gather_positions(hidden, masked.positions))
        nll = token_nll(logits, masked.targets)  # [batch, N]
        shown_as_mask = masked.weights * (masked.ids.gather(1, masked.positions) == self.mask_id)
        hidden_only = weighted_mean(nll.detach(), shown_as_mask)
        losses = {"mlm_loss": weighted_mean(nll, masked.weights), "mlm_loss_hidden": hidden_only, "weight/mlm_loss_hidden": shown_as_mask.sum()}
        return losses, logits

    def generate(self, batch: Batch, masked: Masked, rng: Rng) -> Generated:
        """L_MLM, and the original text with a sample at every chosen position (steps 1 to 3)."""
        slots = masked.positions.shape[1]
        if self.generator is None:  # uniform: logits all 0
            loss = torch.full((), self.vocab_size, dtype=torch.float32, device=masked.ids.device).log()
            losses = {"mlm_loss": loss, "mlm_loss_hidden": loss}
            if self.config.disallow_correct:
                sampled = rng.integers("sample", self.vocab_size - 1, slots)
                sampled = sampled + (sampled >= masked.targets)
            else:
                sampled = rng.integers("sample", self.vocab_size, slots)
        else:
            losses, logits = self.mlm_losses(self.generator, batch, masked)
            disallow = masked.targets if self.config.disallow_correct else None
            sampled = sample_tokens(logits.detach(), rng.uniform("sample", slots), self.config.temperature, disallow)
        ids, written = scatter(batch["input_ids"], masked.positions, masked.weights, sampled, self.config.official_duplicate_mean)
        return Generated(losses, ids, written, sampled)

    def main_losses(self, batch: Batch, masked: Masked, generated: Generated, ranked: bool = False) -> dict[str, Tensor]:
        """What the main network learns from the corrupted text (step 4, and the arms); `ranked` adds the discriminator's AUC."""
        originals, padding = batch["input_ids"], batch.get("attention_mask")
        hidden = encode(self.main.base_model, batch | {"input_ids": generated.ids})  # [batch, length, hidden]
        if self.config.has_rtd_head:
            logits = self.main.discriminator_predictions(hidden)  # [batch, length]
            replaced = generated.written & (generated.ids != originals)  # a sample that equals the original is "original"
            loss = arms.discriminator_loss(logits, replaced, generated.written, padding, only_written=self.config.arm == "electra_15")
            ranking = {"disc_auc": auc(logits, replaced, padding)} if ranked else {}
            return {"disc_loss": loss, **arms.detection_metrics(logits, replaced, padding), **ranking}
        if self.config.arm == "replace_mlm":
            logits = mlm_logits(self.main, gather_positions(hidden, masked.positions))
            return {"main_loss": masked_lm_loss(logits, masked.targets, masked.weights)}
        assert self.copy_gate is not None
        logits = mlm_logits(self.main, hidden)  # [batch, length, vocab]: every token is predicted
        return {"main_loss": arms.all_tokens_loss(logits, self.copy_gate(hidden).squeeze(-1), generated.ids, originals, padding)}

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        config = self.config
        main = config.disc_weight * losses["disc_loss"] if config.has_rtd_head else config.main_weight * losses["main_loss"]
        return config.gen_weight * losses["mlm_loss"] + main

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        if "mlm_loss_hidden" in scalars:
            self.hidden_loss.lerp_(scalars["mlm_loss_hidden"].detach().to(self.hidden_loss.dtype), 1 - _MEMORY)
        if "disc_recall" in scalars:
            self.recall.lerp_(scalars["disc_recall"], 1 - _MEMORY)

    # --- looking at it -------------------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The guard's figures: the MLM loss with **every** chosen slot shown as [MASK] (the 85 % rule leaves answers in sight), and, once it trains,
        the AUC, recall and loss of the discriminator on text corrupted from there."""
        if ctx.phase == "causal":
            loss, _ = self.causal_loss(batch)
            return {"loss": loss, "causal_loss": loss}
        masked = self.mask(batch, ctx.rng, mask_share=1.0)
        if self.config.arm == "mlm" or ctx.phase == "generator":
            losses = self.mlm_losses(self.token_model, batch, masked)[0]
            return {"loss": self.config.gen_weight * losses["mlm_loss"], "mlm_loss_hidden": losses["mlm_loss_hidden"]}
        generated = self.generate(batch, masked, ctx.rng)
        losses = generated.losses | self.main_losses(batch, masked, generated, ranked=True)
        total = self._total(losses)
        del losses["mlm_loss"]  # all slots are hidden: the same figure twice
        return {"loss": total, **losses}

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """For each row: the masked text, the generator's text, and the tokens that the discriminator suspects most, with their probabilities.
        Of a person's own text: guesses for its [MASK]s, and the suspects of the text as it stands."""
        rng = Rng(ctx.rng.key, ctx.rng.rows[: len(batch["input_ids"])])
        masked = self.mask(batch, rng, mask_share=1.0)
        parts = {}
        if own_text:
            shown = self._fill(batch) if self.generator is not None or self.config.arm == "mlm" else batch["input_ids"]
            parts["text"] = self._decode(shown, batch)
        elif self.config.arm == "mlm" or ctx.phase == "causal":
            parts["masked"] = self._decode(masked.ids, batch)
            guesses = self.mlm_losses(self.token_model, batch, masked)[1].argmax(-1)
            parts["guessed"] = self._decode(scatter(batch["input_ids"], masked.positions, masked.weights, guesses)[0], batch)
        else:
            parts["masked"] = self._decode(masked.ids, batch)
            shown = self.generate(batch, masked, rng).ids
            parts["sampled"] = self._decode(shown, batch)
        if self.config.has_rtd_head and ctx.phase == "joint":
            logits = self.main.discriminator_predictions(encode(self.main.base_model, batch | {"input_ids": shown}))
            parts["suspects"] = self._suspects(logits.float().sigmoid(), shown, batch)
        return ["\n  ".join(f"{name}: {texts[row]}" for name, texts in parts.items()) for row in range(len(batch["input_ids"]))]

    def _fill(self, batch: Batch) -> Tensor:
        """The ids with the best guess at every [MASK]."""
        ids = batch["input_ids"]
        guesses = mlm_logits(self.token_model, encode(self.token_model.base_model, batch)).argmax(-1)
        return torch.where(ids == self.mask_id, guesses, ids)

    def _decode(self, ids: Tensor, batch: Batch) -> list[str]:
        padding = batch.get("attention_mask")
        rows = [row if padding is None else row[: int(padding[i].sum())] for i, row in enumerate(ids)]
        return [self.tokenizer.decode(row.tolist(), skip_special_tokens=False) for row in rows]

    def _suspects(self, probabilities: Tensor, ids: Tensor, batch: Batch, n: int = 5) -> list[str]:
        if "attention_mask" in batch:
            probabilities = probabilities.masked_fill(~batch["attention_mask"], -1.0)
        found = []
        for p, row, originals in zip(probabilities, ids, batch["input_ids"], strict=True):
            top = [i for i in p.topk(min(n, len(p))).indices.tolist() if p[i] >= 0]
            words = [f"{self.tokenizer.id_to_token(int(row[i]))} ({p[i]:.2f}{', replaced' if row[i] != originals[i] else ''})" for i in top]
            found.append("  ".join(words))
        return found

    def warnings(self) -> list[str]:
        """What a person should know at the end of a run; reads the device."""
        found = []
        uniform = torch.tensor(float(self.vocab_size)).log()
        if not self.config.uniform_generator and self.hidden_loss > uniform - 1:
            found.append(f"The MLM loss {self.hidden_loss:.2f} is not below ln V - 1 = {uniform - 1:.2f}: the run has not left its start.")
        if self.config.has_rtd_head and self.recall < 1e-3:
            found.append("The discriminator finds no replaced token (recall 0): the run has not left its start.")
        return found

    def compile_parts(self) -> None:
        for model in (self.generator, self.main):
            if model is not None:
                model.base_model.compile()

    # --- downstream ----------------------------------------------------------------------------------------------------

    def backbone(self) -> nn.Module:
        """The main network's encoder; before the joint phase of a staged run, with the weights that the generator has so far."""
        if self.starts_in_stages and not bool(self.copied):
            self._copy_generator()  # nothing trained is lost: the joint phase begins with this copy anyway
        return self.main.base_model

    def hidden_states(self, batch: Batch) -> Tensor:
        """Of the main network's encoder; before the joint phase of a staged run of the generator's, which it will begin with."""
        ahead = self.starts_in_stages and not bool(self.copied)
        return encode(self.generator.base_model if ahead else self.main.base_model, batch)

    def export(self, folder: Path) -> None:
        """`discriminator/` (ElectraForPreTraining, or ModernBertModel with the head beside it; a ForMaskedLM in the arms whose main network predicts
        tokens) and `generator/` (a ForMaskedLM), each a transformers folder with its tokenizer and vocab.txt; `reload` and `load` are the inverse."""
        self.backbone()
        rotary = isinstance(self.main, network.RotaryDiscriminator)
        save_model_folder(self.main.base_model if rotary else self.main, self.tokenizer, folder / _DISCRIMINATOR)
        write_vocabulary(self.tokenizer, folder / _DISCRIMINATOR)
        if rotary:
            network.save_beside(self.main.discriminator_predictions, folder / _DISCRIMINATOR / network.RTD_HEAD_FILE)
        if self.copy_gate is not None:
            network.save_beside(self.copy_gate, folder / network.COPY_GATE_FILE)
        if self.generator is not None:
            save_model_folder(self.generator, self.tokenizer, folder / _GENERATOR)
            write_vocabulary(self.tokenizer, folder / _GENERATOR)
        settings = {"config": asdict(self.config), "special_ids": self.special_ids, "unigram_entropy": float(self.unigram_entropy)}
        (folder / _SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Electra:
        """The method of an export, without the store that it was trained on.

        Raises:
            BadInput: the folder is no export of ELECTRA.
        """
        path = folder / _SETTINGS_FILE
        if not path.is_file():
            raise BadInput(f"holds no {_SETTINGS_FILE}", "Give an export of this method; other folders load with --init.", file=folder)
        saved, shape = read_json(path), read_json(folder / _DISCRIMINATOR / "config.json")
        try:
            config = replace_nested(ElectraConfig(), saved["config"])
            special_ids = checked(saved["special_ids"], dict[str, int], "special_ids")
            entropy, vocab_size = checked(saved["unigram_entropy"], float, "unigram_entropy"), checked(shape["vocab_size"], int, "vocab_size")
        except (UsageError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"is no record of this method ({error})", "Export the model again.", file=path) from None
        tokenizer = load_tokenizer(folder / _DISCRIMINATOR, TextConfig())[0]
        store: Any = SimpleNamespace(tokenizer=tokenizer, special_ids=special_ids, vocab_size=vocab_size, unigram_entropy=entropy)
        return cls(config, store, init=folder)


def _count(ids: Tensor, mask: Tensor | None) -> Tensor:
    """float32 scalar: the tokens that are not padding."""
    return (torch.ones_like(ids, dtype=torch.float32) if mask is None else mask.float()).sum()


def _shared(scalars: dict[str, Tensor], share: Tensor | float) -> dict[str, Tensor]:
    """Means multiplied by this micro-batch's share of their items; those that bring a number of items of their own as they are."""
    own = {name for name in scalars if name.startswith("weight/") or f"weight/{name}" in scalars}
    return {name: value if name in own else value * share for name, value in scalars.items()}


def _detached(scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in scalars.items()}



METHOD = Electra
