"""The numbered checks of SPDF's specification: masks, the masked update, fine-tuning, FLOPs and scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.core.config import read_yaml, replace_nested
from headstart.engine.config import OptimizerConfig
from headstart.engine.guard import Guard
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import build_optimizer, set_learning_rate
from headstart.engine.schedules import multiplier
from headstart.engine.update import Update
from headstart.interop.masks import MASKS, read_masks
from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.export import REPORT, tensors_of
from headstart.interventions.spdf.flops import forward_flops, widest_within
from headstart.interventions.spdf.hold import hold_gradients, hold_moments, hold_weights
from headstart.interventions.spdf.intervention import Sparse
from headstart.interventions.spdf.masks import Matrix, draw, erk_sparsities, find_matrices, keep_largest, kept_count, kept_counts
from headstart.methods.causal_lm.config import SETTINGS
from headstart.tasks.generation import Decoder, Pairs, example, make_pairs, pair_loss, train_pairs
from headstart.tasks.generation_config import GenerationConfig
from headstart.tasks.generation_data import GenerationData, Item
from headstart.tasks.generation_metrics import bleu
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, records, untimed, weight_files

CPU = torch.device("cpu")
HAND = OptimizerConfig(learning_rate=0.01, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=None)
START = [[0.5, -0.2], [0.1, 0.4]]
PRUNED = [[False, True], [False, True]]
GPT2 = {**TINY, "method.architecture": "gpt2", "method.num_layers": 2, "budget.steps": 6}


class Give(torch.autograd.Function):
    """A loss of 1 whose gradient is what one likes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return torch.ones(())

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


class Given(Method):
    """One matrix in one layer; the batch says its gradient."""

    def __init__(self, weight: Sequence[Sequence[float]]) -> None:
        super().__init__()
        values = torch.tensor(weight)
        self.layers = nn.ModuleList([nn.ModuleDict({"dense": nn.Linear(values.shape[1], values.shape[0], bias=False)})])
        self.weight.data.copy_(values)

    @property
    def weight(self) -> nn.Parameter:
        return self.layers[0]["dense"].weight  # type: ignore[index,return-value]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return {"loss": Give.apply(self.weight, batch["gradient"])}


def sparse(weight: Sequence[Sequence[float]], pruned: Sequence[Sequence[bool]]) -> Sparse:
    """A matrix around which these entries are held at zero."""
    method = Sparse(Given(weight), SparsityConfig(level=0.5), seed=0)
    method.buffers_now()[0].copy_(torch.tensor(pruned))
    method.inner.weight.data.copy_(torch.tensor(weight))
    method.hold()
    return method


def updater(method: Method, config: OptimizerConfig = HAND, guard: Guard | None = None) -> Update:
    optimizer = build_optimizer(method, config)
    set_learning_rate(optimizer, config.learning_rate)
    return Update(method, optimizer, clip_norm=config.clip_norm, precision="fp32", device=CPU, seed=0, total_steps=1000, guard=guard)


def step(update: Update, gradient: Sequence[Sequence[float]] | Tensor, number: int = 0) -> dict[str, Tensor]:
    return update([{"gradient": torch.as_tensor(gradient)}], [torch.arange(1)], number, "train")


def moments(update: Update) -> list[Tensor]:
    state = next(iter(update.optimizer.state.values()))
    return [state["exp_avg"], state["exp_avg_sq"]]


def gpt2(layers: int, width: int, vocabulary: int = 50257, context: int = 2048) -> GPT2LMHeadModel:
    """Without memory: for names and shapes."""
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64 or 1, vocab_size=vocabulary, n_positions=context))


@pytest.mark.parametrize(
    ("shape", "level", "kept"), [((768, 3072), 0.75, 589_824), ((768, 768), 0.75, 147_456), ((10, 10), 0.9, 10), ((1000, 1000), 0.9, 100_000)]
)
def test_01_counts_are_exact(shape: tuple[int, int], level: float, kept: int) -> None:
    """In float64 int((1 - 0.9) 100) is 9."""
    assert kept_count(shape[0] * shape[1], level) == kept
    assert keep_largest(draw(0, "w", shape), kept).sum() == kept


@pytest.mark.parametrize(("layers", "width", "weights", "kept"), [(12, 768, 84_934_656, 21_233_664), (24, 2048, 1_207_959_552, 301_989_888)])
def test_02_weights_of_gpt2_small_and_gpt3_xl(layers: int, width: int, weights: int, kept: int) -> None:
    matrices = find_matrices(gpt2(layers, width))
    assert sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices) == weights
    assert sum(map(sum, kept_counts(matrices, 0.75, "uniform"))) == kept
    assert not any(word in matrix.name for matrix in matrices for word in ("wte", "wpe", "ln_", "lm_head", "bias"))


def test_03_the_papers_flops() -> None:
    sizes = {"small": (12, 768, 2048, 50257), "xl": (24, 2048, 2048, 50257)}
    of = {name: [forward_flops(*of_one, level) for level in (0, 0.5, 0.75)] for name, of_one in sizes.items()}
    assert of["small"] == pytest.approx([3.2256e8, 2.3763e8, 1.9516e8], rel=5e-5)
    assert of["xl"] == pytest.approx([3.0244e9, 1.8165e9, 1.2125e9], rel=5e-5)
    assert of["xl"][0] / of["xl"][2] == pytest.approx(2.4944, abs=5e-5)
    assert of["small"][0] / of["small"][1] == pytest.approx(1.357, abs=5e-4)


def test_03_a_run_counts_what_the_formula_says(store: Path, tmp_path: Path) -> None:
    """Counted on the real step, forward and backward, without the zeros; the executed ones are those of the dense network. A row of n tokens predicts
    n - 1 of them."""
    sizes = {"method.hidden_size": 32, "method.num_heads": 2, "method.intermediate_size": 128, "method.sequence_length": 16}
    run = pretrain("causal-lm", store, out=tmp_path / "run", say=lambda line: None, **GPT2 | sizes, **{"sparsity.level": 0.75})
    layers, width, length, rows = 2, 32, 16, 8
    vocabulary = run.info["data"][0]["counts"].get("vocab_size") or len(load_file(run.export / "model.safetensors")["transformer.wte.weight"])

    def training(level: float) -> float:
        head = 2 * vocabulary * width
        return 3 * rows * (length * (forward_flops(layers, width, length, vocabulary, level) - head) + (length - 1) * head)

    decisions = run.info["decisions"]
    assert decisions["flops_per_step"]["train"] == pytest.approx(training(0.75), rel=1e-9)
    assert decisions["executed_flops_per_step"]["train"] == pytest.approx(training(0), rel=1e-9)
    assert run.info["totals"]["flops"] == 6 * decisions["flops_per_step"]["train"]
    assert run.info["totals"]["executed_flops"] == 6 * decisions["executed_flops_per_step"]["train"]


def test_04_masked_adamw_by_hand() -> None:
    method = sparse(START, PRUNED)
    update = updater(method)
    step(update, [[0.3, -0.7], [0.0, 0.2]])
    assert method.inner.weight.flatten().tolist() == pytest.approx([0.4895, 0, 0.0999, 0], abs=1e-7)
    step(update, [[0.1, 0.5], [-0.2, 0.4]], 1)
    assert method.inner.weight.flatten().tolist() == pytest.approx([0.480211, 0, 0.107150, 0], abs=1e-6)


def test_05_a_dense_step_moves_pruned_entries_at_once() -> None:
    method = Given([[0.5, 0.0], [0.1, 0.0]])
    step(updater(method), [[0.3, -0.7], [0.0, 0.2]])
    assert method.weight.flatten().tolist() == pytest.approx([0.4895, 0.01, 0.0999, -0.01], abs=1e-7)


def test_06_pruned_entries_and_their_moments_stay_exactly_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    method = sparse(START, PRUNED)
    update = updater(method, OptimizerConfig(learning_rate=0.01, weight_decay=0.1, clip_norm=1.0))
    for number in range(200):
        step(update, torch.randn(2, 2, generator=generator), number)
    pruned = torch.tensor(PRUNED)
    for tensor in (method.inner.weight.detach(), *moments(update)):
        assert torch.equal(tensor[pruned].abs(), torch.zeros(2))
        assert (tensor[~pruned] != 0).all()


def test_06_a_phase_leaves_no_moments_of_before_on_pruned_entries() -> None:
    """They are masked after its first update, with the weights that they have moved."""
    method = sparse(START, PRUNED)
    update = updater(method)
    step(update, [[0.3, -0.7], [0.0, 0.2]])
    for moment in moments(update):
        moment.fill_(0.5)
    update([{"gradient": torch.zeros(2, 2)}], [torch.arange(1)], 1, "another phase")
    pruned = torch.tensor(PRUNED)
    for tensor in (method.inner.weight.detach(), *moments(update)):
        assert torch.equal(tensor[pruned].abs(), torch.zeros(2))
        assert (tensor[~pruned] != 0).all()


def test_06_a_second_optimiser_of_the_same_phase_has_its_moments_masked_too() -> None:
    """A trial updates with an optimiser of its own before the run does, with one that may have the moments of another run."""
    method = sparse(START, PRUNED)
    step(updater(method), [[0.3, -0.7], [0.0, 0.2]])
    update = updater(method)
    method.inner.weight.grad = torch.ones(2, 2)
    update.optimizer.step()
    assert all((moment != 0).all() for moment in moments(update))
    step(update, [[0.3, -0.7], [0.0, 0.2]])
    assert all(torch.equal(moment[torch.tensor(PRUNED)].abs(), torch.zeros(2)) for moment in moments(update))


@pytest.mark.parametrize("left_out", ["nothing", "moments", "gradients"])
def test_06_what_each_part_of_the_order_is_for(left_out: str) -> None:
    """Masks are put on a run that already has moments; a step later the optimiser must still see none on pruned entries."""
    weight, pruned = nn.Parameter(torch.tensor(START)), torch.tensor(PRUNED)
    optimizer = build_optimizer(nn.ParameterDict({"w": weight}), HAND)
    generator = torch.Generator().manual_seed(0)

    def optimise(masked: bool) -> None:
        weight.grad = torch.randn(2, 2, generator=generator)
        if masked and left_out != "gradients":
            hold_gradients([weight], [pruned])
        optimizer.step()

    for _ in range(10):
        optimise(masked=False)
    hold_weights([weight], [pruned])
    optimise(masked=True)
    hold_weights([weight], [pruned])
    if left_out != "moments":
        hold_moments(optimizer, [weight], [pruned])
    optimise(masked=True)
    state = optimizer.state[weight]
    assert bool((state["exp_avg"][pruned] != 0).any()) is (left_out != "nothing")


def test_07_nan_on_a_pruned_gradient_is_nothing_and_on_a_kept_one_is_seen() -> None:
    clean, broken = sparse(START, PRUNED), sparse(START, PRUNED)
    config = OptimizerConfig(learning_rate=0.01, clip_norm=1.0)
    of_clean, of_broken = (updater(method, config, Guard(CPU, "skip", 10)) for method in (clean, broken))
    step(of_clean, [[0.3, 0.0], [0.1, 0.0]])
    found = step(of_broken, [[0.3, float("nan")], [0.1, float("inf")]])
    assert torch.equal(clean.inner.weight, broken.inner.weight)
    assert torch.isfinite(found["gradient_norm"])
    before = broken.inner.weight.detach().clone()
    found = step(of_broken, [[float("nan"), 0.0], [0.1, 0.0]], 1)
    assert torch.isnan(found["gradient_norm"])
    assert of_broken.guard is not None
    assert of_broken.guard.peek().skipped_in_all == 1
    assert torch.equal(broken.inner.weight, before)


def test_08_nothing_pruned_is_the_dense_run_bit_for_bit(store: Path, tmp_path: Path) -> None:
    for name, level in (("dense", {}), ("wrapped", {"sparsity.level": 1e-9})):
        pretrain("causal-lm", store, out=tmp_path / name, say=lambda line: None, **GPT2, **level)
    assert untimed(records(tmp_path / "dense", "metrics")) == untimed(records(tmp_path / "wrapped", "metrics"))
    dense, wrapped = weight_files(tmp_path / "dense"), weight_files(tmp_path / "wrapped")
    assert {name: wrapped[name] for name in dense} == dense
    masks = read_masks(tmp_path / "wrapped" / "export")
    assert masks
    assert all(bool(mask.all()) for mask in masks.values())


def test_08_sparse_fine_tuning_with_a_mask_of_ones_is_dense_fine_tuning(decoder_folder: Path) -> None:
    config = GenerationConfig(epochs=2, batch=4)
    found = []
    for masks in (None, {"transformer.h.0.mlp.c_fc.weight": torch.ones(32, 48, dtype=torch.bool)}):
        decoder = Decoder.load(decoder_folder)
        train_pairs(decoder, make_pairs(decoder, PAIRS, config), config, 1e-3, 0, CPU, masks)
        found.append({name: value.clone() for name, value in decoder.model.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_09_a_mask_depends_on_seed_and_name_alone() -> None:
    """Processes, DDP and FSDP2, and a run that resumes: test_on_two_processes_masks_are_the_same_and_a_run_resumes."""
    def masks(layers: int, seed: int) -> dict[str, Tensor]:
        method = Sparse(Wrapped(layers), SparsityConfig(level=0.75), seed)
        return {matrix.name: mask for matrix, mask in zip(method.matrices, method.buffers_now(), strict=True)}

    one, three, other = masks(1, 0), masks(3, 0), masks(1, 1)
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    names = list(three)
    assert not torch.equal(three[names[0]], three[names[4]]), "layers have masks of their own"


class Wrapped(Method):
    """A small GPT-2 as a method."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=16, n_head=2, vocab_size=40, n_positions=16))


def test_10_gradients_of_inputs_use_the_masked_weights() -> None:
    weight, dy = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    found = []
    for scribble in (0.0, 9.0):
        inner = Given(weight.tolist())
        mask = keep_largest(draw(0, "layers.0.dense.weight", (6, 4)), 12)
        inner.weight.data[~torch.from_numpy(mask)] += scribble  # what stands in pruned entries must not matter
        Sparse(inner, SparsityConfig(level=0.5), seed=0)
        x = torch.ones(3, 4, requires_grad=True)
        inner.layers[0]["dense"](x).backward(dy)  # type: ignore[index]
        assert x.grad is not None
        assert torch.allclose(x.grad, dy @ (weight * torch.from_numpy(mask)))
        found.append(x.grad)
    assert torch.equal(*found)


def test_11_of_a_fused_matrix_queries_keys_and_values_are_drawn_each_for_itself() -> None:
    method = Sparse(Wrapped(), SparsityConfig(level=0.75), seed=0)
    matrix = method.matrices[0]
    assert (matrix.name, matrix.shape, matrix.transposed) == ("model.transformer.h.0.attn.c_attn.weight", (48, 16), True)
    pruned = method.buffers_now()[0]
    assert pruned.shape == (16, 48), "as the Conv1D lies"
    for i, part in enumerate("qkv"):
        expected = keep_largest(draw(0, f"{matrix.name}#{part}", (16, 16)), 64)
        assert np.array_equal(~pruned.numpy().T[16 * i : 16 * (i + 1)], expected)
    square = method.matrices[1]
    assert square.name.endswith("attn.c_proj.weight")
    assert np.array_equal(~method.buffers_now()[1].numpy().T, keep_largest(draw(0, square.name, (16, 16)), 64))


def test_12_erdos_renyi_kernel() -> None:
    shapes = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
    found = erk_sparsities(shapes, 0.75)
    assert found == pytest.approx([0.666667] * 4 + [0.791667] * 2, abs=1e-6)
    weights = np.array([out * into for out, into in shapes])
    assert ((1 - np.array(found)) * weights).sum() / weights.sum() == pytest.approx(0.25)
    assert (1 - found[0]) * 768 * 768 / (768 + 768) == pytest.approx(128)
    small = erk_sparsities([(8, 8), (512, 512)], 0.75)
    assert small[0] == 0, "a matrix whose density would exceed 1 is dense"
    assert (64 + (1 - small[1]) * 512**2) / (64 + 512**2) == pytest.approx(0.25), "and the rest makes up for it"


def test_13_the_clip_norm_is_that_of_kept_gradients() -> None:
    method = sparse(START, [[False, True], [False, True]])
    update = updater(method, OptimizerConfig(learning_rate=0.01, clip_norm=1.0))
    assert step(update, [[3.0, 100.0], [4.0, 100.0]])["gradient_norm"] == pytest.approx(5.0)
    assert method.inner.weight.grad is not None
    assert method.inner.weight.grad.flatten().tolist() == pytest.approx([0.6, 0, 0.8, 0])


def test_14_bleu() -> None:
    """Precisions 9/10, 7/9, 5/8, 4/7; the reference lengths 9 and 11 are equally close to 10, and the shorter counts: no brevity penalty."""
    output = "the vaults pub is a cheap pub near the river"
    references = ["the vaults is a cheap pub near the river", "near the river there is a cheap pub called the vaults"]
    pytest.importorskip("sacrebleu")
    assert bleu([output], [references]) == pytest.approx(0.707107, abs=1e-6)
    assert bleu(references[1:], [references]) == pytest.approx(1.0), "any reference counts"
    assert bleu([output] * 2, [references, references[:1]]) < 0.707107, "a source with fewer references is scored against those it has"


PAIRS = GenerationData(
    [Item("name: Aroma; food: thai", ("Aroma is a small place.", "Aroma has thai food.")), Item("name: Bo; area: old town", ("Bo is quiet.",))]
)


@pytest.fixture(scope="module")
def decoder_folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2, trained for six steps at 50 %."""
    out = tmp_path_factory.mktemp("gpt2") / "run"
    return pretrain("causal-lm", store, out=out, say=lambda line: None, **GPT2 | {"method.sequence_length": 64, "sparsity.level": 0.5}).export


def test_15_only_the_target_and_its_end_are_learned(decoder_folder: Path) -> None:
    ids, start = example(list(range(10)), list(range(20, 25)), [99], 1)
    assert (ids[start:], len(ids) - start) == ([20, 21, 22, 23, 24, 1], 6)
    decoder = Decoder.load(decoder_folder)
    rows = make_pairs(decoder, PAIRS, GenerationConfig())
    pairs = Pairs(rows, decoder, CPU)
    first = decoder.ids([PAIRS.items[0].targets[0]])[0]
    assert pairs.counts[0] == len(first) + 1
    _, targets, counted = pairs.states(decoder.model, np.array([0]))
    assert targets[0][counted[0]].tolist() == [*first, decoder.end]
    with torch.no_grad():
        whole = decoder.model(torch.from_numpy(rows.ids[: rows.lengths[0]])[None].long()).logits[0].log_softmax(-1)
    by_hand = -sum(whole[place - 1, rows.ids[place]] for place in range(int(rows.row_values["start"][0]), int(rows.lengths[0])))
    assert pair_loss(decoder.model, pairs, np.array([0]), int(pairs.counts[0])).item() == pytest.approx(float(by_hand) / pairs.counts[0], rel=1e-5)
    learned = make_pairs(decoder, PAIRS, GenerationConfig(loss_on_source=True))
    assert (learned.lengths - learned.row_values["start"]).tolist() == (learned.lengths - 1).tolist()


def test_16_an_export_holds_true_zeros(decoder_folder: Path) -> None:
    """Exactly s of each masked matrix, where its mask says so; nowhere else any."""
    masks, report = read_masks(decoder_folder), json.loads((decoder_folder / REPORT).read_text())
    assert (decoder_folder / MASKS).is_file()
    weights = dict(tensors_of(decoder_folder))
    layer = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert set(masks) == {f"transformer.h.{i}.{name}.weight" for i in range(2) for name in layer}
    for name, mask in masks.items():
        assert (weights[name] == 0).mean() == 0.5
        assert np.array_equal(weights[name] != 0, mask.numpy())
    others = {name: int((values == 0).sum()) for name, values in weights.items() if name not in masks}
    assert others == dict.fromkeys(others, 0)
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.h.0.mlp.c_fc.bias"} <= others.keys()
    assert (report["sparsity"], report["zeros_in_other_weights"]) == (0.5, 0)
    assert report["kept"] + report["zeros"] == report["weights"] == sum(mask.numel() for mask in masks.values())


def test_16_the_zeros_are_there_for_whoever_loads_the_export(store: Path, tmp_path: Path) -> None:
    """At 75 %, as transformers reads it: queries, keys, values each have their share, an optimiser that decays and remembers brought none back."""
    run = pretrain("causal-lm", store, out=tmp_path / "run", say=lambda line: None, **GPT2, **{"sparsity.level": 0.75, "optimizer.weight_decay": 0.5})
    model = GPT2LMHeadModel.from_pretrained(run.export)
    masks = read_masks(run.export)
    for name, module in model.named_modules():
        if f"{name}.weight" not in masks:
            assert not hasattr(module, "weight") or bool((module.weight != 0).all()), name
            continue
        blocks = module.weight.chunk(3, dim=1) if name.endswith("c_attn") else [module.weight]
        assert [float((block == 0).float().mean()) for block in blocks] == [0.75] * len(blocks), name
        assert torch.equal(module.weight != 0, masks[f"{name}.weight"]), name


def example_run(name: str) -> Any:
    """The settings of a run of the paper."""
    return replace_nested(preset_config(SETTINGS, "base")[1], read_yaml(Path(__file__).parents[2] / "examples" / name))


def test_17_the_official_steps() -> None:
    config = example_run("spdf_gpt2_small.yaml")
    tokens = config.batch * config.method.sequence_length
    assert config.budget.steps * tokens == 2_505_048_064
    assert config.schedule.warmup_steps * tokens == 375_390_208
    rate = [config.optimizer.learning_rate * multiplier(at, 4778, config.schedule) for at in (358, 716, 4778)]
    assert rate == pytest.approx([3e-4, 6e-4, 6e-5])
    assert (config.sparsity.level, config.optimizer.weight_decay, config.optimizer.beta2) == (0.75, 0.1, 0.95)


def test_17_the_official_steps_of_gpt3_xl() -> None:
    """346 steps of warm-up and 23,988 after them, 26.3 billion tokens: 20 for each of its 1.3 billion parameters."""
    config = example_run("spdf_gpt3_xl.yaml")
    assert config.budget.steps == 346 + 23_988
    assert config.budget.steps * config.batch * config.method.sequence_length == pytest.approx(26.3e9, rel=1e-3)
    rate = [config.optimizer.learning_rate * multiplier(at, 24_334, config.schedule) for at in (173, 346, 24_334)]
    assert rate == pytest.approx([1e-4, 2e-4, 2e-5])
    shape = (config.method.num_layers, config.method.hidden_size, config.method.num_heads, config.method.intermediate_size)
    assert shape == (24, 2048, 16, 8192)
    assert (config.sparsity.level, config.optimizer.weight_decay, config.optimizer.beta2, config.optimizer.clip_norm) == (0.75, 0.1, 0.95, 1.0)
    dense = forward_flops(24, 2048, 2048, 50257)
    assert dense / forward_flops(24, 2048, 2048, 50257, config.sparsity.level) == pytest.approx(2.494, abs=5e-4)


@pytest.mark.parametrize(
    ("seed", "name", "numel", "level", "kept"),
    [
        (0, "transformer.h.0.mlp.c_fc.weight", 24, 0.75, [0, 4, 6, 13, 19, 21]),
        (1, "transformer.h.0.mlp.c_fc.weight", 24, 0.75, [2, 3, 7, 9, 12, 16]),
        (0, "transformer.h.0.attn.c_attn.weight#k", 16, 0.5, [1, 2, 5, 11, 12, 13, 14, 15]),
    ],
)
def test_18_the_draw(seed: int, name: str, numel: int, level: float, kept: list[int]) -> None:
    assert np.flatnonzero(keep_largest(draw(seed, name, (1, numel)), kept_count(numel, level))).tolist() == kept


def test_18_ties_go_to_the_lower_index() -> None:
    assert np.flatnonzero(keep_largest(np.array([[0.5, 0.9, 0.5, 0.5]]), 2)).tolist() == [0, 1]


def test_19_the_networks_of_the_claim() -> None:
    cpu = [forward_flops(3, 128, 224, 1024, level) for level in (0, 0.5, 0.75)]
    assert cpu == [1_785_856, 1_196_032, 901_120]
    assert cpu[0] / cpu[2] == pytest.approx(1.9818, abs=5e-5)
    assert forward_flops(3, 80, 224, 1024) == 839_680
    assert widest_within(cpu[2], 3, 224, 1024) == 80
    gpu = [forward_flops(6, 512, 512, 4096, level) for level in (0, 0.5, 0.75)]
    assert gpu == [48_234_496, 29_360_128, 19_922_944]
    assert gpu[0] / gpu[2] == pytest.approx(2.4211, abs=5e-5)
    assert widest_within(gpu[2], 6, 512, 4096) == 304
    assert forward_flops(6, 304, 512, 4096) == 19_533_824


def test_matrices_of_other_shapes_have_one_block() -> None:
    assert [name for name, _ in Matrix("encoder.layer.0.attention.query.weight", (16, 16)).blocks] == ["encoder.layer.0.attention.query.weight"]
    assert [name for name, _ in Matrix("blocks.0.attn.qkv.weight", (48, 16)).blocks] == [f"blocks.0.attn.qkv.weight#{part}" for part in "qkv"]
