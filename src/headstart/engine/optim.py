"""Optimisers and parameter groups.

- `adamw`: torch's fused AdamW.
- `adam-uncorrected`: Adam without bias correction, as BERT and ELECTRA were trained (google-research/electra, model/optimization.py). The first
  update is about 3.16 learning rates instead of one, so a rate from those papers means what it meant there.
- `lamb`: LAMB, for very large batches (`engine.lamb`).
- `muon`: Muon (Jordan et al. 2024) for the matrices inside the layers, AdamW for embeddings, heads and vectors, in one optimiser.
- `sgd`: stochastic gradient descent with momentum beta1 (0: none). Its weight decay is added to the gradient, as torch does.

The learning rate of each group is a tensor where a fused kernel takes one: `set_learning_rate` writes to it without waiting for the device, and a
captured CUDA graph reads the new value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.engine.config import OptimizerConfig
from headstart.engine.distributed import as_cut, is_cut, local
from headstart.engine.lamb import Lamb

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")  # BERT layer.3., ModernBERT/Llama layers.3., GPT-2 h.3., ViT/T5 blocks.3. and block.3.
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe)(?:\.|$)")  # also `embeddings_project`, which sits at the embeddings' depth
_EMBEDDING_TABLE = re.compile(r"(?:embeddings?|embed_tokens|wte|wpe)\.weight$|(?:_embed|_token)$")
_HEAD = re.compile(r"(?:^|\.)(?:\w*head|classifier|\w*predictions)\.")  # a norm in there is not the backbone's final norm
_FINAL_NORM = re.compile(r"(?:^|\.)(?:\w*norm|ln_\w+|pooler)(?:\.|$)", re.IGNORECASE)
_NO_DECAY = re.compile(r"(?:^|\.)(?:\w*norm\w*)\.|bias$|(?:^|\.)ln_\w+\.", re.IGNORECASE)

_STEP_FOREVER = 2.0**100
"""A step count at which beta^step is 0 in float32, so that both bias corrections are exactly 1; adding 1 to it changes nothing."""

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, five steps


def layer_depth(name: str, n_layers: int, official_llrd_gap: bool = False) -> int:
    """Depth of a parameter for layer-wise rates: embeddings and their projection 0, layer i (from 0) i + 1, task heads n_layers + 1, or n_layers + 2
    with the official gap. What follows the last layer inside the backbone (final norm, pooler) goes with that layer."""
    if match := _LAYER.search(name):
        return int(match[1]) + 1
    if _EMBEDDING.search(name):
        return 0
    if _FINAL_NORM.search(name) and not _HEAD.search(name):
        return n_layers
    return n_layers + (2 if official_llrd_gap else 1)


def count_layers(names: Iterable[str]) -> int:
    """Number of layers that the parameter names speak of (`layer.N.`, `layers.N.`, `h.N.`, `blocks.N.`); 0 if none."""
    return max((int(match[1]) + 1 for name in names if (match := _LAYER.search(name))), default=0)


def parameter_groups(named_parameters: Iterable[tuple[str, Tensor]], config: OptimizerConfig, n_layers: int | None = None) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one group; a tensor with several names counts once, under its first.

    Args:
        named_parameters: `model.named_parameters()`.
        n_layers: number of layers for layer-wise rates; None reads it from the names.

    Returns:
        groups {"params", "names", "weight_decay", "lr_scale", "muon"} in a fixed order. No norm, bias or vector decays; embedding tables as the
        config says. A parameter with an attribute `lr_scale` learns at so many times the rate (log Z of a flow network).
    """
    named, seen = [], set()
    for name, parameter in named_parameters:
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            named.append((name, parameter))
    if n_layers is None:
        n_layers = count_layers(name for name, _ in named)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    top = layer_depth("head", n_layers, config.official_llrd_gap)
    for name, parameter in named:
        decays = parameter.ndim > 1 and not _NO_DECAY.search(name) and (config.decay_embeddings or not _EMBEDDING_TABLE.search(name))
        scale = config.layer_decay ** (top - layer_depth(name, n_layers, config.official_llrd_gap)) * getattr(parameter, "lr_scale", 1.0)
        by_muon = config.name == "muon" and parameter.ndim == 2 and _LAYER.search(name) is not None and "embed" not in name and "bias" not in name
        decay = config.weight_decay if decays else 0.0
        group = groups.setdefault((scale, decay, by_muon), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale, "muon": by_muon})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(model: nn.Module, config: OptimizerConfig, n_layers: int | None = None, cuda_graph: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a model that already lies on its device. Its rate starts at the peak: call `set_learning_rate` before each step.

    Args:
        cuda_graph: the steps will be captured in a CUDA graph.

    Raises:
        UsageError: nothing to train, or a setting outside its range.
    """
    config.check()
    groups = parameter_groups(model.named_parameters(), config, n_layers)
    if not groups:
        raise UsageError("The model has no trainable parameter.", "Unfreeze a part of it.")
    devices = {parameter.device for group in groups for parameter in group["params"]}
    fused = config.fused if config.fused is not None else all(device.type in ("cuda", "cpu") for device in devices)
    fused = fused or config.name == "lamb"  # its rate and its left-out updates stay on the device, as those of fused kernels
    for group in groups:
        rate = config.learning_rate * group["lr_scale"]
        group["lr"] = torch.tensor(rate, dtype=torch.float32, device=group["params"][0].device) if fused else rate
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
        "fused": fused,
        "capturable": cuda_graph and fused,
    }
    optimizer: torch.optim.Optimizer
    if config.name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.beta1, fused=fused)
        for group in optimizer.param_groups:
            group["capturable"] = False  # no such flag: a fused step reads its rate on the device
            for parameter in group["params"] if config.beta1 else ():  # torch's first step leaves them unwritten where the guard leaves it out
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    elif config.name == "lamb":
        optimizer = Lamb(groups, config.learning_rate, (config.beta1, config.beta2), config.epsilon)
    elif config.name == "muon":
        optimizer = MuonAdamW(groups, momentum=config.muon_momentum, **settings)
    else:
        optimizer = torch.optim.AdamW(groups, **settings)
    if config.name == "adam-uncorrected":
        _switch_off_bias_correction(optimizer)
    optimizer.register_load_state_dict_post_hook(_keep_what_belongs_to_the_machine(optimizer))
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets each group's rate to `value * lr_scale`, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value * group["lr_scale"])
        else:
            group["lr"] = value * group["lr_scale"]


def step_unless(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """One update of the weights, or none where `found_inf` (float32 scalar, `engine.guard`) is 1: then weights, moments and step counts stay as they
    are. Fused kernels decide on the device; without them the host waits for the answer."""
    if all(group["fused"] for group in optimizer.param_groups):
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]  # the name under which torch's gradient scaler hands it to fused kernels
        optimizer.step()
    elif not bool(found_inf):
        optimizer.step()


def reset_moments(optimizer: torch.optim.Optimizer) -> None:
    """Starts the moments anew, in place (a phase with fresh data or fresh weights). Without bias correction the step count stays where it is."""
    for state in optimizer.state.values():
        for key, tensor in state.items():
            if key == "step" and bool(tensor >= _STEP_FOREVER):
                continue
            tensor.zero_()


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint keeps of an optimiser: {"state": {parameter name: {...}}, "groups": [settings]}. Named, so that each tensor can be placed as
    its parameter on any number of processes."""
    named = [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
    state = {name: dict(optimizer.state[parameter]) for name, parameter in named if parameter in optimizer.state}  # the same order after a restart
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return {"state": state, "groups": groups}


def load_named_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """The inverse of `named_state`, into an optimiser of the same model and settings."""
    order = [name for group in optimizer.param_groups for name in group["names"]]
    state = {i: saved["state"][name] for i, name in enumerate(order) if name in saved["state"]}
    groups, first = [], 0
    for group in saved["groups"]:
        groups.append({**group, "params": list(range(first, first + len(group["names"])))})
        first += len(group["names"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Puts the moments and step counts of another run into a new optimiser, whose own rates and settings stay. Whatever lay around either method is
    left out of the names.

    Args:
        saved: as of `named_state`.

    Raises:
        UsageError: the other run did not train these parameters.
    """
    bare = lambda name: re.sub(r"^(?:inner\.)+", "", name)  # noqa: E731
    moments = {bare(name): state for name, state in saved["state"].items()}
    order = [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
    state = {i: moments[bare(name)] for i, (name, _) in enumerate(order) if bare(name) in moments}
    others = [name for i, (name, parameter) in enumerate(order) if i in state and state[i][_sized(state[i])].shape != parameter.shape]
    if others or not state:
        which = others[0] if others else "any parameter of this one"
        raise UsageError(f"The old run has no moments for {which}.", "Start them anew: --rewarm.optimizer-state reset.")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _sized(state: dict[str, Any]) -> str:
    """The name of a moment that is shaped as its parameter."""
    return next(name for name in state if name != "step")


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None, each: bool = False) -> Tensor:
    """Scales the gradients in place to a global norm of at most `max_norm`: g * max_norm / max(norm, max_norm), as tf.clip_by_global_norm.

    Args:
        each: every tensor by its own norm instead: g * min(1, max_norm / (norm + 1e-6)) (Haochen-Wang409/DropPos util/utils.py).

    Returns:
        the norm before clipping, a scalar on the device: nothing waits for it. It is NaN or infinite if a gradient is.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.nn.utils.get_total_norm(gradients)
    if is_cut(norm):
        norm = norm.full_tensor()
    if max_norm is not None and each:
        norms = [own.full_tensor() if is_cut(own) else own for own in torch._foreach_norm(gradients)]
        torch._foreach_mul_([local(gradient) for gradient in gradients], [(max_norm / (own + 1e-6)).clamp(max=1.0) for own in norms])
    elif max_norm is not None:
        torch._foreach_mul_([local(gradient) for gradient in gradients], max_norm / norm.clamp(min=max_norm))
    return norm


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups marked `muon` are updated by Muon instead: momentum, then the nearest orthogonal matrix by five Newton-Schulz steps.

    Matrices of one shape are orthogonalised together in one batched product (torch.optim.Muon takes them one by one and reads the rate back to the
    host). The update is scaled by 0.2 sqrt(max(rows, columns)), which gives it the size of an AdamW update (Liu et al. 2025, arXiv 2502.16982), so
    both kinds of group share one learning rate and one weight decay.

    Like the fused AdamW it makes no update where its attribute `found_inf` is 1 (`step_unless`).
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[dict[str, Any]], momentum: float = 0.95, **adamw: Any) -> None:
        super().__init__(params, **adamw)
        for group in self.param_groups:
            group["momentum"] = momentum

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all groups."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._muon_step(group)
        return loss

    @torch.no_grad()
    def _muon_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault((parameter.shape, parameter.dtype), []).append(parameter)
        for (shape, _), parameters in by_shape.items():
            for parameter in parameters:
                if "momentum_buffer" not in self.state[parameter]:  # `step` only because AdamW's load_state_dict expects one
                    self.state[parameter] = {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(parameter)}
            gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
            buffers = [local(self.state[parameter]["momentum_buffer"]) for parameter in parameters]
            rate = group["lr"]
            if self.found_inf is not None:  # the mean of a buffer and itself is that buffer, and a rate of 0 changes nothing: both exactly
                left_out = self.found_inf.bool()
                gradients = [torch.where(left_out, buffer, gradient) for buffer, gradient in zip(buffers, gradients, strict=True)]
                rate = rate * (1 - self.found_inf)
            torch._foreach_lerp_(buffers, gradients, 1.0 - group["momentum"])
            nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
            matrices = torch.stack([_whole(part, parameter) for part, parameter in zip(nesterov, parameters, strict=True)])
            update = orthogonalise(matrices).to(parameters[0].dtype) * (rate * 0.2 * math.sqrt(max(shape)))  # [n, rows, columns]
            weights = [local(parameter) for parameter in parameters]
            torch._foreach_mul_(weights, 1.0 - rate * group["weight_decay"])
            torch._foreach_sub_(weights, [_part(matrix, parameter) for matrix, parameter in zip(update, parameters, strict=True)])


def _whole(part: Tensor, parameter: Tensor) -> Tensor:
    """The matrix of which this process has the part: a cut matrix cannot be orthogonalised. Every process does it for itself."""
    if not is_cut(parameter):
        return part
    return as_cut(part, parameter).full_tensor()


def _part(matrix: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a matrix that every process has, cut as the parameter."""
    if not is_cut(parameter):
        return matrix
    return type(parameter).from_local(matrix, parameter.device_mesh, run_check=False).redistribute(placements=parameter.placements).to_local()


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values come out between about 0.7 and 1.2 (Jordan et al. 2024).

    Args:
        matrices: [n, rows, columns].

    Returns:
        [n, rows, columns], bf16 on a GPU (where that is the fast product), the input's own type elsewhere.
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT  # [n, short, short]
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _switch_off_bias_correction(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(_STEP_FOREVER, dtype=torch.float32, device=parameter.device if group["fused"] else "cpu"),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }


def _keep_what_belongs_to_the_machine(optimizer: torch.optim.Optimizer) -> Callable[[torch.optim.Optimizer], None]:
    """A hook for `load_state_dict`, which replaces the groups' rate tensors and kernel flags by those of the machine that saved them."""
    own = [(group["lr"], group["fused"], group["capturable"]) for group in optimizer.param_groups]

    def restore(loaded: torch.optim.Optimizer) -> None:
        for group, (rate, fused, capturable) in zip(loaded.param_groups, own, strict=True):
            if isinstance(rate, Tensor):
                group["lr"] = rate.fill_(float(group["lr"]))
            group["fused"], group["capturable"] = fused, capturable

    return restore
