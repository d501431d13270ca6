"""Optimisers against hand numbers, parameter groups against names, and exact restarts."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.engine.optim import (
    OptimizerConfig,
    build_optimizer,
    clip_gradients,
    count_layers,
    layer_depth,
    orthogonalise,
    parameter_groups,
    reset_moments,
    set_learning_rate,
)

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


class Net(nn.Module):
    """A stand-in with the parameter names of a transformers encoder under a task head."""

    def __init__(self, n_layers: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.embeddings = nn.Module()
        self.encoder.embeddings.word_embeddings = nn.Embedding(11, 4)
        self.encoder.embeddings.LayerNorm = nn.LayerNorm(4)
        self.encoder.embeddings_project = nn.Linear(4, 6)
        self.encoder.layer = nn.ModuleList(nn.ModuleDict({"dense": nn.Linear(6, 6), "LayerNorm": nn.LayerNorm(6)}) for _ in range(n_layers))
        self.encoder.final_norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.encoder.embeddings_project(self.encoder.embeddings.LayerNorm(self.encoder.embeddings.word_embeddings(ids)))
        for layer in self.encoder.layer:
            x = layer["LayerNorm"](x + layer["dense"](x).tanh())
        return self.head(self.encoder.final_norm(x))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 11, (8,), generator=generator).to(next(model.parameters()).device)
        optimizer.zero_grad()
        model(ids).logsumexp(-1).square().sum().backward()
        clip_gradients(model.parameters(), 1.0)
        set_learning_rate(optimizer, 1e-2 / (1 + step))
        optimizer.step()


def one_weight(config: OptimizerConfig, gradients: list[float], device: str = "cpu") -> list[float]:
    model = nn.Linear(1, 1, bias=False, device=device)
    model.weight = nn.Parameter(torch.full((1, 1), 0.2, device=device))
    optimizer = build_optimizer(model, config)
    values = []
    for gradient in gradients:
        model.weight.grad = torch.full((1, 1), gradient, device=device)
        set_learning_rate(optimizer, 1e-3)
        optimizer.step()
        values.append(model.weight.item())
    return values


ELECTRA_ADAM = OptimizerConfig(name="adam-uncorrected", learning_rate=1e-3, epsilon=1e-6, weight_decay=0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fused", [True, False])
def test_sgd_with_momentum_and_decay(device: str, fused: bool) -> None:
    """w - rate * b, b = beta1 * b + g + decay * w."""
    config = OptimizerConfig(name="sgd", beta1=0.9, weight_decay=0.5, fused=fused)
    first = 0.2 - 1e-3 * (buffer := 0.3 + 0.5 * 0.2)
    second = first - 1e-3 * (0.9 * buffer - 0.7 + 0.5 * first)
    assert one_weight(config, [0.3, -0.7], device) == pytest.approx([first, second], abs=1e-7)
    plain = replace(config, beta1=0.0, weight_decay=0.0)
    assert one_weight(plain, [0.3, -0.7], device) == pytest.approx([0.2 - 3e-4, 0.2 + 4e-4], abs=1e-7)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fused", [True, False])
def test_10_adam_without_bias_correction(device: str, fused: bool) -> None:
    assert one_weight(replace(ELECTRA_ADAM, fused=fused), [0.5, 0.5, -0.25], device) == pytest.approx([0.19683592, 0.19258455, 0.19003013], abs=1e-7)


def test_10_textbook_adamw_differs() -> None:
    textbook = OptimizerConfig(name="adamw", learning_rate=1e-3, epsilon=1e-6, weight_decay=0.01)
    assert one_weight(textbook, [0.5])[0] == pytest.approx(0.198998, abs=1e-6)


def test_10_first_step_does_not_depend_on_the_scale_of_the_gradient() -> None:
    config = OptimizerConfig(name="adam-uncorrected", learning_rate=1e-3, epsilon=0.0, weight_decay=0.0)
    for gradient in (1e-3, 1.0, 1e3):
        assert 0.2 - one_weight(config, [gradient])[0] == pytest.approx(1e-3 * 0.1 / 0.001**0.5, rel=1e-4)


def test_10_norms_and_biases_do_not_decay() -> None:
    model = Net()
    groups = parameter_groups(model.named_parameters(), ELECTRA_ADAM)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["encoder.embeddings.word_embeddings.weight"] == 0.01  # word embeddings do decay
    assert decay["encoder.embeddings_project.weight"] == decay["head.weight"] == decay["encoder.layer.0.dense.weight"] == 0.01
    assert decay["encoder.embeddings.LayerNorm.weight"] == decay["encoder.layer.1.dense.bias"] == decay["encoder.final_norm.weight"] == 0.0


def test_the_step_count_that_switches_the_correction_off_stays_put() -> None:
    model = Net()
    optimizer = build_optimizer(model, ELECTRA_ADAM)
    train(model, optimizer, 2)
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0**100}


@pytest.mark.parametrize(
    ("n_layers", "gap", "expected"),
    [
        (12, True, {"embeddings": 0.0439805, 0: 0.0549756, 11: 0.64, "head": 1.0}),
        (4, True, {"embeddings": 0.262144, 0: 0.32768, 1: 0.4096, 2: 0.512, 3: 0.64, "head": 1.0}),
        (4, False, {"embeddings": 0.32768, 0: 0.4096, 1: 0.512, 2: 0.64, 3: 0.8, "head": 1.0}),
    ],
)
def test_12_layer_wise_decay(n_layers: int, gap: bool, expected: dict[str | int, float]) -> None:
    model = Net(n_layers)
    groups = parameter_groups(model.named_parameters(), OptimizerConfig(layer_decay=0.8, official_llrd_gap=gap), n_layers)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    for part, value in expected.items():
        prefix = {"embeddings": "encoder.embeddings", "head": "head"}.get(str(part), f"encoder.layer.{part}.")  # `embeddings_project` is among them
        scales = [scale[name] for name in scale if name.startswith(prefix)]
        assert len(scales) > 1
        assert scales == pytest.approx([value] * len(scales), abs=1e-7)


def test_12_every_trainable_parameter_belongs_to_exactly_one_group() -> None:
    model = Net(3)
    model.encoder.layer[1].requires_grad_(False)
    for name in ("adamw", "muon"):
        groups = parameter_groups(model.named_parameters(), OptimizerConfig(name=name, layer_decay=0.8))
        ids = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def test_a_shared_tensor_is_counted_once() -> None:
    model = Net()
    model.head = nn.Linear(4, 11)
    model.head.weight = model.encoder.embeddings.word_embeddings.weight
    groups = parameter_groups(model.named_parameters(remove_duplicate=False), OptimizerConfig())
    assert sum(parameter is model.head.weight for group in groups for parameter in group["params"]) == 1


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("electra.encoder.layer.2.attention.self.query.weight", 3),
        ("model.layers.0.mlp.Wi.weight", 1),
        ("transformer.h.3.ln_1.weight", 4),
        ("encoder.block.1.layer.0.SelfAttention.q.weight", 2),
        ("blocks.11.norm1.weight", 12),
        ("transformer.wte.weight", 0),
        ("transformer.wpe.weight", 0),
        ("model.embed_tokens.weight", 0),
        ("embeddings.tok_embeddings.weight", 0),
        ("electra.embeddings_project.bias", 0),
        ("patch_embed.proj.weight", 0),
        ("transformer.ln_f.weight", 12),
        ("model.final_norm.weight", 12),
        ("bert.pooler.dense.weight", 12),
        ("head.dense.weight", 13),
        ("head.norm.weight", 13),
        ("cls.predictions.transform.LayerNorm.weight", 13),
        ("classifier.weight", 13),
    ],
)
def test_depth_is_read_from_the_names_of_the_field(name: str, depth: int) -> None:
    assert layer_depth(name, 12) == depth
    if depth == 13:
        assert layer_depth(name, 12, official_llrd_gap=True) == 14


def test_layers_are_counted_from_names() -> None:
    assert count_layers(name for name, _ in Net(5).named_parameters()) == 5
    assert count_layers(["weight"]) == 0


def test_embedding_tables_can_be_kept_from_decaying_but_their_projection_decays() -> None:
    groups = parameter_groups(Net().named_parameters(), OptimizerConfig(decay_embeddings=False))
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["encoder.embeddings.word_embeddings.weight"] == 0.0
    assert decay["encoder.embeddings_project.weight"] == 0.01


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["adamw", "adam-uncorrected", "lamb", "muon", "sgd"])
def test_a_restart_from_the_saved_state_is_exact(name: str, device: str) -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(name=name, layer_decay=0.9)
    model = Net().to(device)
    optimizer = build_optimizer(model, config)
    train(model, optimizer, 3)
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    train(model, optimizer, 3, start=3)

    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    again = Net().to(device)
    restarted = build_optimizer(again, config)
    rates = [group["lr"] for group in restarted.param_groups]
    again.load_state_dict(state["model"])
    restarted.load_state_dict(state["optimizer"])
    assert all(group["lr"] is rate for group, rate in zip(restarted.param_groups, rates, strict=True))  # a captured graph reads these
    train(again, restarted, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_set_learning_rate_scales_each_group() -> None:
    optimizer = build_optimizer(Net(2), OptimizerConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 0.25)
    rates = {name: float(group["lr"]) for group in optimizer.param_groups for name in group["names"]}
    assert rates["head.weight"] == 0.25
    assert rates["encoder.layer.1.dense.weight"] == 0.125
    assert rates["encoder.embeddings.word_embeddings.weight"] == 0.25 / 8


def test_a_smaller_rate_scale_moves_the_lower_layers_less() -> None:
    torch.manual_seed(0)
    model = Net(2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, build_optimizer(model, OptimizerConfig(layer_decay=0.1, weight_decay=0.0)), 1)
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in model.named_parameters()}
    assert moved["encoder.layer.0.dense.weight"] == pytest.approx(0.1 * moved["encoder.layer.1.dense.weight"], rel=1e-2)


def test_clipping_scales_to_the_norm_and_leaves_small_gradients_alone() -> None:
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients([a, b, nn.Parameter(torch.zeros(1))], 1.0).item() == pytest.approx(5.0)
    assert torch.cat([a.grad, b.grad]).tolist() == pytest.approx([0.6, 0.0, 0.8])
    small = a.grad.clone()
    assert clip_gradients([a, b], 2.0).item() == pytest.approx(1.0)
    assert torch.equal(a.grad, small)
    assert clip_gradients([a, b], None).item() == pytest.approx(1.0)
    assert clip_gradients([nn.Parameter(torch.zeros(1))], 1.0).item() == 0.0


def test_a_broken_gradient_shows_in_the_norm() -> None:
    a = nn.Parameter(torch.zeros(2))
    a.grad = torch.tensor([float("nan"), 1.0])
    assert clip_gradients([a], 1.0).isnan()


def test_muon_takes_the_matrices_inside_the_layers_only() -> None:
    groups = parameter_groups(Net().named_parameters(), OptimizerConfig(name="muon"))
    by_muon = {name for group in groups if group["muon"] for name in group["names"]}
    assert by_muon == {"encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight"}


def test_muon_matches_torchs_own_muon() -> None:
    torch.manual_seed(0)
    layers = nn.Module()
    layers.layers = nn.ModuleList([nn.Linear(24, 16, bias=False), nn.Linear(16, 24, bias=False), nn.Linear(24, 16, bias=False)])
    peer = [nn.Parameter(layer.weight.detach().clone()) for layer in layers.layers]
    ours = build_optimizer(layers, OptimizerConfig(name="muon", learning_rate=0.02, weight_decay=0.1))
    theirs = torch.optim.Muon(peer, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for layer, weight in zip(layers.layers, peer, strict=True):
            weight.grad = torch.randn(weight.shape)
            layer.weight.grad = weight.grad.clone()
        set_learning_rate(ours, 0.02)
        ours.step()
        theirs.step()
    for layer, weight in zip(layers.layers, peer, strict=True):
        assert (layer.weight - weight).abs().max() < 1e-3  # torch orthogonalises in bf16; one update moves an entry by about 0.004


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((4, 16, 40), (4, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_fresh_moments_are_those_of_a_new_optimiser() -> None:
    for name in ("adamw", "adam-uncorrected", "lamb", "muon", "sgd"):
        torch.manual_seed(0)
        model = Net()
        optimizer = build_optimizer(model, OptimizerConfig(name=name))
        train(model, optimizer, 2)
        other = copy.deepcopy(model)
        reset_moments(optimizer)
        train(model, optimizer, 2)
        train(other, build_optimizer(other, OptimizerConfig(name=name)), 2)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)), name


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(name="adagrad"),  # type: ignore[arg-type]
        OptimizerConfig(layer_decay=0.0),
        OptimizerConfig(clip_norm=0.0),
        OptimizerConfig(learning_rate=float("nan")),
        OptimizerConfig(epsilon=-1.0),
        OptimizerConfig(weight_decay=-0.1),
        OptimizerConfig(name="muon", muon_momentum=1.0),
    ],
)
def test_impossible_settings_are_refused(config: OptimizerConfig) -> None:
    with pytest.raises(UsageError):
        build_optimizer(Net(), config)


def test_a_frozen_model_has_nothing_to_optimise() -> None:
    with pytest.raises(UsageError, match="no trainable parameter"):
        build_optimizer(Net().requires_grad_(False), OptimizerConfig())


if torch.cuda.is_available():

    @pytest.mark.parametrize("name", ["adamw", "adam-uncorrected", "lamb", "muon"])
    def test_a_captured_update_reads_the_rate_of_each_step(name: str) -> None:
        """Ten updates replayed from one CUDA graph equal ten plain ones, under a rate that changes every step."""
        finals = []
        for graphed in (False, True):
            torch.manual_seed(0)
            model = Net().cuda()
            optimizer = build_optimizer(model, OptimizerConfig(name=name, layer_decay=0.9), cuda_graph=graphed)
            ids = torch.arange(8, device="cuda")

            def update(model: Net = model, optimizer: torch.optim.Optimizer = optimizer, ids: Tensor = ids) -> None:
                optimizer.zero_grad(set_to_none=True)
                model(ids).logsumexp(-1).square().sum().backward()
                clip_gradients(model.parameters(), 1.0)
                optimizer.step()

            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for step in range(3):
                    set_learning_rate(optimizer, 1e-2 / (1 + step))
                    update()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            if graphed:
                with torch.cuda.graph(graph):
                    update()
            for step in range(3, 13):
                set_learning_rate(optimizer, 1e-2 / (1 + step))
                if graphed:
                    graph.replay()
                else:
                    update()
            torch.cuda.synchronize()
            finals.append([parameter.detach().clone() for parameter in model.parameters()])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*finals, strict=True))
