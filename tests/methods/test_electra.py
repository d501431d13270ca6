"""ELECTRA as a method of the engine: phases, invariance of rows, memory, export and import, what it shows."""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel, AutoModelForMaskedLM, ElectraForPreTraining, ElectraModel, ModernBertModel

from headstart.backbones.text import encode
from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import Rng
from headstart.data.text.tokenizer import write_vocabulary
from headstart.engine.method import Context
from headstart.methods.electra.config import PRESETS, ElectraConfig, check, start_lengths
from headstart.methods.electra.method import Electra
from headstart.objectives.token_loss import token_nll

VOCAB = 211  # a prime, so that no other dimension is mistaken for it
LENGTH = 24
SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def tokenizer() -> Tokenizer:
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4} | {f"w{i}": i for i in range(5, VOCAB)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def facts(vocab_size: int = VOCAB) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(tokenizer=tokenizer(), special_ids=SPECIAL, vocab_size=vocab_size, unigram_entropy=math.log(vocab_size))


PAPER: dict[str, Any] = {
    "num_layers": 2, "hidden_size": 32, "num_heads": 2, "embedding_size": 16, "generator_hidden_size": 0.5, "max_positions": LENGTH,
}  # fmt: skip
ROTARY: dict[str, Any] = {
    "architecture": "modernbert", "num_layers": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "embedding_size": None,
    "generator_hidden_size": 1.0,
}  # fmt: skip


def method(form: dict[str, Any] = PAPER, init: Path | None = None, **changes: Any) -> Electra:
    torch.manual_seed(0)
    return Electra(ElectraConfig(**{"sequence_length": LENGTH, "dropout": 0.0, "mask_ratio": 0.25, **form, **changes}), facts(), init)


def batch_of(rows: int = 4, padded: bool = False) -> dict[str, Tensor]:
    ids = torch.randint(5, VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3
    batch = {"input_ids": ids, "token_type_ids": (torch.arange(LENGTH) > 12).long().repeat(rows, 1)}
    if padded:
        batch["attention_mask"] = torch.arange(LENGTH) < torch.tensor([LENGTH, 20, 9, 15] * (rows // 4))[:, None]
        batch["input_ids"] = ids.masked_fill(~batch["attention_mask"], 0)
    return batch


def context(rows: Tensor | None = None, phase: str = "joint", step: int = 0) -> Context:
    return Context(step, 100, phase, Rng.at(0, step, torch.arange(4) if rows is None else rows), torch.device("cpu"))


@pytest.mark.parametrize("form", [PAPER, ROTARY], ids=["paper", "rotary"])
def test_rows_have_the_same_masks_and_loss_in_any_micro_batch_and_order(form: dict[str, Any]) -> None:
    """Full rows have equal weights. With padding, the micro-batches' means weigh rows differently, as the official code's TPU cores do."""
    model, batch = method(form), batch_of(8)
    rows = torch.arange(8)
    whole = model.loss(batch, context(rows))
    for cut in (1, 2, 4):
        parts = []
        for start in range(0, 8, cut):
            part = slice(start, start + cut)
            ctx = context(rows[part])
            masked = model.mask({name: value[part] for name, value in batch.items()}, ctx.rng)
            assert torch.equal(masked.ids, model.mask(batch, context(rows).rng).ids[part])
            parts.append(model.loss({name: value[part] for name, value in batch.items()}, ctx))
        for name in ("loss", "mlm_loss", "disc_loss", "replaced_share"):
            mean = torch.stack([part[name] for part in parts]).mean()
            torch.testing.assert_close(mean, whole[name], rtol=1e-6, atol=1e-6, msg=f"{name} in micro-batches of {cut}")
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = model.loss({name: value[order] for name, value in batch.items()}, context(order))
    torch.testing.assert_close(shuffled["loss"], whole["loss"], rtol=1e-6, atol=1e-6)
    other = model.loss(batch, context(rows, step=1))
    assert abs(float((other["loss"] - whole["loss"]).detach())) > 1e-4  # another step has other masks


class LargestTensor(TorchDispatchMode):
    """Shapes of all tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.shapes |= {tuple(leaf.shape) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out


@pytest.mark.parametrize("arm", ["electra", "electra_15", "mlm", "replace_mlm", "all_tokens_mlm"])
def test_vocabulary_logits_exist_only_at_the_chosen_positions(arm: str) -> None:
    model = method(arm=arm)
    with LargestTensor() as seen:
        model.loss(batch_of(padded=True), context())["loss"].backward()
    rows_of_logits = max(math.prod(shape) // VOCAB for shape in seen.shapes if VOCAB in shape[1:])
    slots = 4 * int(0.255 * LENGTH)
    assert rows_of_logits == (4 * LENGTH if arm == "all_tokens_mlm" else slots)


@pytest.mark.parametrize("form", [PAPER, ROTARY], ids=["paper", "rotary"])
@pytest.mark.parametrize("phase", ["causal", "generator", "joint"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_a_step_never_waits_for_the_device(form: dict[str, Any], phase: str, padded: bool) -> None:
    """Fake tensors hold no values: an `.item()`, a boolean index or a shape that depends on data would raise. So a CUDA graph can hold the step."""
    batch = batch_of(padded=padded)
    rng = Rng.at(0, 0, torch.arange(4))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        model = copy.deepcopy(method(form))
    with mode:
        fake = {name: mode.from_tensor(value) for name, value in batch.items()}
        ctx = Context(0, 100, phase, Rng(mode.from_tensor(rng.key), mode.from_tensor(rng.rows)), torch.device("cpu"))
        scalars = model.loss(fake, ctx)
        scalars["loss"].backward()
    assert all(value.shape == () for value in scalars.values())


def test_sampling_and_masks_need_no_attention_mask_on_full_rows() -> None:
    model = method()
    seen: list[Any] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        seen.append(args[1] if len(args) > 1 else kwargs.get("attention_mask"))

    for network in (model.generator, model.main):
        network.base_model.encoder.layer[0].attention.register_forward_hook(note, with_kwargs=True)
    model.loss(batch_of(), context())
    assert seen == [None, None]
    seen.clear()
    model.loss(batch_of(padded=True), context())
    assert [tuple(mask.shape) for mask in seen] == [(4, 1, 1, LENGTH)] * 2


def test_phases_fit_any_budget() -> None:
    config = PRESETS["tiny"].method
    assert start_lengths(config, 1600) == (300, 400)
    assert start_lengths(config, 800) == (154, 205)
    assert start_lengths(config, 8) == (1, 2)
    assert [phase.name for phase in method(ROTARY, causal_start=3, generator_start=4).phases(100)] == ["causal", "generator", "joint"]
    assert [phase.name for phase in method(ROTARY, arm="mlm", causal_start=3, generator_start=4).phases(100)] == ["causal", "joint"]
    assert [phase.name for phase in method().phases(100)] == ["joint"]


def test_a_causal_start_predicts_every_token() -> None:
    assert method().predicted_per_row() == 0.25 * LENGTH
    assert method(ROTARY, causal_start=3, generator_start=4).predicted_per_row() == 0.25 * LENGTH  # the discriminator comes after the generator


def test_each_phase_trains_its_part() -> None:
    model = method(ROTARY, causal_start=1, generator_start=1)
    for phase, main_moves in (("causal", False), ("generator", False), ("joint", True)):
        model.zero_grad()
        scalars = model.loss(batch_of(), context(phase=phase))
        scalars["loss"].backward()
        moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and "embeddings" not in name}
        assert moved == ({"generator", "main"} if main_moves else {"generator"}), phase
        assert ("causal_loss" in scalars) is (phase == "causal")
        assert ("disc_loss" in scalars) is main_moves


def test_the_joint_phase_starts_from_the_generators_weights(caplog: pytest.LogCaptureFixture) -> None:
    model = method(ROTARY, causal_start=1, generator_start=1)
    batch = batch_of()

    def same() -> bool:
        return torch.equal(encode(model.generator.base_model, batch), encode(model.main.base_model, batch))

    assert not same()
    before = encode(model.generator.base_model, batch)
    start = model.phases(100)[-1].on_start
    assert start is not None
    with caplog.at_level(logging.INFO):
        start()
    assert "still on the plateau" in caplog.text
    assert same()
    torch.testing.assert_close(encode(model.generator.base_model, batch), before)
    assert model.generator.base_model.layers[0].mlp.Wi.weight.data_ptr() != model.main.base_model.layers[0].mlp.Wi.weight.data_ptr()
    model.hidden_loss.fill_(model.unigram_entropy - 0.6)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        start()
    assert "off the plateau" in caplog.text


def test_before_the_joint_phase_the_backbone_is_what_the_generator_has_learned() -> None:
    model = method(ROTARY, generator_start=1)
    batch = batch_of()
    torch.testing.assert_close(model.hidden_states(batch), encode(model.generator.base_model, batch))
    model.phases(100)[-1].on_start()
    with torch.no_grad():
        model.generator.base_model.layers[0].mlp.Wi.weight.mul_(3.0)  # later training of the generator must not reach the discriminator
    assert not torch.allclose(model.hidden_states(batch), encode(model.generator.base_model, batch))


def test_running_loss_counts_hidden_slots_only() -> None:
    """A generator that copies what it sees looks good on the 15 % of slots that show the original; the plateau line must not."""
    model = method()
    scalars = model.loss(batch_of(), context())
    masked = model.mask(batch_of(), context().rng)
    logits = model.mlm_losses(model.generator, batch_of(), masked)[1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), masked.targets.flatten(), reduction="none").view_as(masked.weights)
    hidden = (masked.weights > 0) & (masked.ids.gather(1, masked.positions) == SPECIAL["mask"])
    assert 0 < int(hidden.sum()) < int(masked.weights.sum())
    torch.testing.assert_close(scalars["mlm_loss_hidden"], nll[hidden].mean())
    model.observe(scalars)
    torch.testing.assert_close(model.hidden_loss, 0.98 * torch.tensor(model.unigram_entropy) + 0.02 * scalars["mlm_loss_hidden"])


def test_evaluation_hides_every_slot_and_ranks() -> None:
    model = method().eval()
    result = model.evaluate(batch_of(padded=True), context())
    assert {"loss", "mlm_loss_hidden", "disc_loss", "disc_auc", "disc_recall", "disc_accuracy", "replaced_share"} == {
        name for name in result if not name.startswith("weight/")
    }
    masked = model.mask(batch_of(padded=True), context().rng, mask_share=1.0)
    assert bool((masked.ids.gather(1, masked.positions)[masked.weights > 0] == SPECIAL["mask"]).all())
    with torch.no_grad():
        nll = token_nll(model.mlm_losses(model.generator, batch_of(padded=True), masked)[1], masked.targets)
        torch.testing.assert_close(result["mlm_loss_hidden"], nll[masked.weights > 0].mean())
        generated = model.generate(batch_of(padded=True), masked, context().rng)
        scores = model.main.discriminator_predictions(encode(model.main.base_model, batch_of(padded=True) | {"input_ids": generated.ids}))
    real = batch_of(padded=True)["attention_mask"]
    replaced = (generated.ids != batch_of(padded=True)["input_ids"]) & real
    positive, negative = scores[replaced], scores[real & ~replaced]
    torch.testing.assert_close(result["disc_auc"], (positive[:, None] > negative).float().mean())
    assert set(model.evaluate(batch_of(), context(phase="generator"))) == {"loss", "mlm_loss_hidden"}
    assert set(method(arm="mlm").eval().evaluate(batch_of(), context())) == {"loss", "mlm_loss_hidden"}


@pytest.mark.parametrize(
    ("arm", "parts"),
    [("electra", ["masked", "sampled", "suspects"]), ("mlm", ["masked", "guessed"]), ("all_tokens_mlm", ["masked", "sampled"])],
)
def test_show_is_text_a_person_can_read(arm: str, parts: list[str]) -> None:
    shown = method(arm=arm).eval().show(batch_of(padded=True), context())
    assert len(shown) == 4  # one a row
    for text in shown:
        assert [line.split(":")[0].strip() for line in text.splitlines()] == parts
        assert "[MASK]" in text
        assert "[PAD]" not in text


def test_show_fills_a_persons_masks_and_suspects_their_words() -> None:
    batch = batch_of(2)
    batch["input_ids"][:, 4] = SPECIAL["mask"]
    (text, _) = method().eval().show(batch, context(torch.arange(2)), own_text=True)
    first, second = text.splitlines()
    assert first.startswith("text: [CLS]")
    assert "[MASK]" not in first
    assert second.strip().startswith("suspects: ")
    assert len(first.split()) == 1 + LENGTH


FORMS = {"paper": PAPER, "rotary": ROTARY, "untied": PAPER | {"untied_generator_embeddings": True}, "one": PAPER | {"untied_generator": False}}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_export_loads_in_transformers_and_here(form: dict[str, Any], tmp_path: Path) -> None:
    model = method(form).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    model.export(tmp_path)
    batch = {"input_ids": batch_of()["input_ids"]}
    theirs = AutoModel.from_pretrained(tmp_path / "discriminator").eval()
    assert isinstance(theirs, ModernBertModel if form is ROTARY else ElectraModel)
    torch.testing.assert_close(theirs(**batch).last_hidden_state, model.hidden_states(batch), rtol=0, atol=1e-5)
    generator = AutoModelForMaskedLM.from_pretrained(tmp_path / "generator").eval()
    ours = model.generator(**batch).logits
    torch.testing.assert_close(generator(**batch).logits, ours, rtol=0, atol=1e-5)
    if form is not ROTARY:
        full = ElectraForPreTraining.from_pretrained(tmp_path / "discriminator").eval()
        torch.testing.assert_close(full(**batch).logits, model.main(**batch).logits, rtol=0, atol=1e-5)

    again = Electra.load(tmp_path)
    for name in ("untied_generator", "untied_generator_embeddings", "mask_ratio", "arm"):
        assert getattr(again.config, name) == getattr(model.config, name)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]  # nothing shared came apart
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)
    expected, found = (m.loss(batch, context())["loss"] for m in (model, again.eval()))
    torch.testing.assert_close(found, expected)


def test_both_folders_of_an_export_have_the_vocabulary_as_bert_has_it(tmp_path: Path) -> None:
    """vocab.txt, a token a line in the order of ids: what code for the official checkpoints reads."""
    method().export(tmp_path)
    for name in ("discriminator", "generator"):
        lines = (tmp_path / name / "vocab.txt").read_text(encoding="utf-8").split("\n")
        assert lines == [*(tokenizer().id_to_token(i) for i in range(VOCAB)), ""]
    assert not write_vocabulary(Tokenizer(models.BPE()), tmp_path), "other vocabularies are no list of words"
    torn = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 2}, unk_token="[UNK]"))
    assert not write_vocabulary(torn, tmp_path), "a line that is not there would move all others"
    assert not (tmp_path / "vocab.txt").exists()


@pytest.mark.parametrize("arm", ["mlm", "replace_mlm", "all_tokens_mlm", "electra_15"])
@pytest.mark.parametrize("form", [PAPER, ROTARY], ids=["paper", "rotary"])
def test_every_arm_reloads_as_it_was(arm: str, form: dict[str, Any], tmp_path: Path) -> None:
    model = method(form, arm=arm).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    model.export(tmp_path)
    again = Electra.load(tmp_path).eval()
    torch.testing.assert_close(again.loss(batch_of(), context())["loss"], model.loss(batch_of(), context())["loss"])


def test_continuing_from_an_export_is_joint_from_the_start(tmp_path: Path) -> None:
    method(ROTARY, generator_start=2).export(tmp_path)
    again = method(ROTARY, tmp_path, generator_start=2)
    assert [phase.name for phase in again.phases(100)] == ["joint"]
    before = encode(again.main.base_model, batch_of())
    torch.testing.assert_close(again.hidden_states(batch_of()), before)  # the generator is not copied over it


def test_a_discriminator_folder_alone_gets_a_fresh_generator_on_its_embeddings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = method(hidden_size=64)
    model.export(tmp_path)
    again = method(init=tmp_path / "discriminator", num_layers=5)
    assert (again.config.num_layers, again.config.hidden_size) == (2, 64)  # the folder's size, not the preset's
    assert "no generator" in caplog.text
    assert again.generator.base_model.embeddings is again.main.base_model.embeddings
    torch.testing.assert_close(again.main.state_dict(), model.main.state_dict())


def test_embeddings_that_came_apart_become_one_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = method()
    model.export(tmp_path)
    weights = load_file(tmp_path / "generator" / "model.safetensors")
    weights["electra.embeddings.word_embeddings.weight"] += 1.0
    save_file(weights, tmp_path / "generator" / "model.safetensors", metadata={"format": "pt"})
    again = Electra.load(tmp_path)
    assert "shared again" in caplog.text
    torch.testing.assert_close(again.state_dict(), model.state_dict())


def test_any_electra_model_folder_loads_and_its_head_starts_fresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = method()
    model.main.electra.save_pretrained(tmp_path)
    again = method(init=tmp_path)
    assert "discriminator_predictions" in caplog.text
    torch.testing.assert_close(again.main.electra.state_dict(), model.main.electra.state_dict())


def test_generator_folder_continues_the_mlm_arm_and_is_refused_as_discriminator(tmp_path: Path) -> None:
    model = method()
    model.export(tmp_path)
    again = method(init=tmp_path / "generator", arm="mlm")
    torch.testing.assert_close(again.main.state_dict(), model.generator.state_dict())
    assert again.main.generator_lm_head.weight is again.main.electra.embeddings.word_embeddings.weight
    with pytest.raises(BadInput, match="is a generator"):
        method(init=tmp_path / "generator")


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    method().export(tmp_path)
    config = tmp_path / "discriminator" / "config.json"
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"vocab_size": 500}))
    with pytest.raises(BadInput, match=f"500 entries, the prepared text {VOCAB}"):
        method(init=tmp_path)
    config.write_text(json.dumps(saved | {"num_hidden_layers": 3}))
    with pytest.raises(BadInput, match="lacks 16 weights of the encoder"):
        method(init=tmp_path)
    with pytest.raises(BadInput, match=r"no config\.json"):
        method(init=tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"electra\.json"):
        Electra.load(tmp_path / "discriminator")
    config.write_text(json.dumps(saved))
    (tmp_path / "electra.json").write_text('{"config": {"hidden_size": "wide"}, "special_ids": [], "unigram_entropy": null}')
    with pytest.raises(BadInput, match="no record of this method"):
        Electra.load(tmp_path)


def test_a_tokenizer_without_mask_is_refused() -> None:
    store = facts()
    store.special_ids = {name: i for name, i in SPECIAL.items() if name != "mask"}
    with pytest.raises(BadInput, match=r"\[MASK\]"):
        Electra(ElectraConfig(**PAPER, sequence_length=LENGTH), store)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 99}, "99 tokens do not fit the position table of 24"),
        ({"hidden_size": 524, "generator_hidden_size": 0.25}, "width 131 .* cannot be split over 2 heads"),
        ({"mask_ratio": 1.5}, "--method.mask-ratio is 1.5"),
        ({"temperature": 0.0}, "--method.temperature is 0"),
        ({"generator_start": 5}, "both must be of one size"),
        ({"arm": "replace_mlm", "untied_generator": False}, "two networks by definition"),
        ({"architecture": "modernbert"}, "cannot share its embeddings"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(ElectraConfig(**{"sequence_length": LENGTH, **PAPER, **changes}))


def test_a_run_that_never_left_its_start_says_so() -> None:
    model = method()
    model.hidden_loss.fill_(math.log(VOCAB) - 0.5)
    model.recall.fill_(0.0)
    assert len(model.warnings()) == 2
    model.hidden_loss.fill_(math.log(VOCAB) - 1.5)
    model.recall.fill_(0.2)
    assert model.warnings() == []
