"""The faster kernels compute what the library's do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
from transformers.pytorch_utils import Conv1D

from headstart.backbones.dropout import Dropout, dropout
from headstart.backbones.kernels import GELUTanh, TransposedLinear, use_fast_kernels, use_float8
from headstart.core import products


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_a_share_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(401, 997, dtype=dtype, requires_grad=True)
    dropped = dropout(x, p)
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 2e-5)
    assert dropped.max().item() == pytest.approx(1 / (1 - p), rel=5e-3)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    for place in range(4):  # four elements share a word
        assert (dropped.flatten()[place::4] == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    neighbours = (dropped.flatten()[:-1] == 0) & (dropped.flatten()[1:] == 0)
    assert neighbours.float().mean().item() == pytest.approx(p * p, abs=0.01)


def test_dropout_follows_the_seed_and_the_mode() -> None:
    x = torch.randn(33)
    module = Dropout(0.3)
    torch.manual_seed(5)
    first = module(x)
    torch.manual_seed(5)
    assert torch.equal(first, module(x))
    assert torch.equal(module.eval()(x), x)
    assert dropout(x, 0.0) is not None
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(dropout(x, 1.0), torch.zeros(33))
    assert dropout(torch.zeros(0, 4), 0.5).shape == (0, 4)


def test_gelu_is_that_of_gpt2() -> None:
    x = torch.linspace(-6, 6, 1001)
    expected = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    assert torch.allclose(GELUTanh()(x), expected, atol=1e-6)
    assert not torch.allclose(F.gelu(x), expected, atol=1e-5)  # the exact GELU is another function


def test_a_network_keeps_its_parameters_and_its_outputs() -> None:
    torch.manual_seed(0)
    gpt2 = GPT2Model(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2)).eval()
    bert = BertModel(BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)).eval()
    ids = torch.randint(0, 99, (2, 11))
    for model in (gpt2, bert):
        names = list(model.state_dict())
        before = model(ids).last_hidden_state
        use_fast_kernels(model)
        assert list(model.state_dict()) == names
        assert torch.allclose(model(ids).last_hidden_state, before, atol=1e-5)
        assert not any(type(module) is nn.Dropout for module in model.modules())
    assert any(isinstance(module, GELUTanh) for module in gpt2.modules())


def test_dense_layers_change_their_class_alone() -> None:
    shared = nn.Linear(4, 3)
    network = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU()), "b": nn.Sequential(shared), "c": Conv1D(3, 4)})
    weights = dict(network.named_parameters())
    use_fast_kernels(network)
    assert type(network["a"][0]) is products.Linear
    assert network["a"][0] is network["b"][0] is shared
    assert type(network["c"]) is TransposedLinear
    assert all(parameter is weights[name] for name, parameter in network.named_parameters())


@pytest.mark.skipif(not products.mkl_is_slow(), reason="products of this CPU stay with MKL")
def test_a_step_by_onednn_is_that_by_mkl() -> None:
    """Large enough for the faster products; every gradient to the precision of fp32."""
    torch.manual_seed(0)
    plain = GPT2Model(GPT2Config(vocab_size=99, n_embd=192, n_layer=1, n_head=3, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    fast = copy.deepcopy(plain)
    use_fast_kernels(fast)
    ids = torch.randint(0, 99, (8, 64))
    for model in (plain, fast):
        model(ids).last_hidden_state.square().mean().backward()
    assert products.suits(torch.zeros(8 * 64, 192), fast.h[0].mlp.c_fc.weight.t())
    for mine, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_dense_layers_of_fitting_sizes_multiply_in_8_bits_and_keep_their_names() -> None:
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, n_inner=40, vocab_size=60, n_positions=16)
    network = GPT2Model(config).eval()
    names = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    plain = copy.deepcopy(network)
    use_fast_kernels(network)
    assert use_float8(network) == 2 * 2, "c_attn and c_proj of attention; those of 40 are no multiple of 16"
    assert {name: parameter.data_ptr() for name, parameter in network.named_parameters()} == names
    ids = torch.randint(60, (2, 16))
    with torch.no_grad():
        expected = plain(ids).last_hidden_state
        assert torch.allclose(network(ids).last_hidden_state, expected, atol=1e-5), "without autocast"
        with torch.autocast("cpu", torch.bfloat16):
            found = network(ids).last_hidden_state.float()
    error = float((found - expected).norm() / expected.norm())
    assert 1e-3 < error < 5e-2
