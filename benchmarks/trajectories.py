"""Trajectories a second against torchgfn: the same environment, batch, network and loss (trajectory balance), sampling and update together.

python -m benchmarks.trajectories [--batches 16 256] [--rounds 7] [--out benchmarks/results/trajectories-cpu.json]

torchgfn (2.4) pins numpy below 2; it runs with ours all the same. Keep it apart, in a folder of its own:

    pip install --no-deps --target peers torchgfn tensordict torch_geometric einops dill linear-attention-transformer ...   (whatever it imports)
    PYTHONPATH=src:peers python -m benchmarks.trajectories

Both sides are in this process, take turns, and use one thread. Neither computes a state again to learn from it: torchgfn keeps the log-probabilities
with their graph, its faster way; ours what each layer said. On the grid ours asks the network once for each of the 64 cells, and looks the policy
up; on bits once for all rows that came the same way, while these ways are few. Rewards are each library's own for that environment, both cheap.

On bits nearly every state is new. There `network alone` stands beside: the same network on all states of an update in one call, forward and backward,
every product in full, and nothing else. What torchgfn takes over that (`products_alone`) is the most that a sampler could be ahead which multiplies
one-hot states; ours adds up columns of the first layer's weight instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import bit_modes, corners, near_modes
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Bits
from headstart.methods.oc_gfn.baselines import Scratch, ScratchConfig
from headstart.methods.oc_gfn.network import mlp
from headstart.methods.oc_gfn.torchgfn import encoded

HIDDEN, LAYERS = 256, 2
SIDE, BITS, WORD = 8, 40, 4
MUST, AIM = 3.0, 3.0


class Uncached(Scores):
    """Every reward is asked for anew, as the peer does."""

    def __call__(self, objects: torch.Tensor) -> torch.Tensor:
        return self.reward(objects)


def ours(name: str, batch: int) -> Callable[[], object]:
    """One update of ours."""
    environment: Environment = Grid(SIDE, edge_ends=False) if name == "hypergrid" else Bits(BITS, WORD)
    reward = corners(environment, 0.1) if isinstance(environment, Grid) else near_modes(environment, bit_modes(environment), 1.0)  # type: ignore[arg-type]
    training = Scratch(Uncached(environment, reward), ScratchConfig(HIDDEN, LAYERS, batch=batch, epsilon=0.0))
    training.advance()  # the first one counts FLOPs
    return training.advance


def peer(name: str, batch: int) -> Callable[[], object]:
    """One update of torchgfn's."""
    from gfn.estimators import DiscretePolicyEstimator
    from gfn.gflownet import TBGFlowNet
    from gfn.gym import BitSequence, HyperGrid
    from gfn.preprocessors import Preprocessor
    from gfn.utils.modules import MLP

    mine: Environment = Grid(SIDE, edge_ends=False) if name == "hypergrid" else Bits(BITS, WORD)
    theirs: Any = HyperGrid(2, SIDE, validate_modes=False) if name == "hypergrid" else BitSequence(WORD, BITS)

    class OneHot(Preprocessor):  # type: ignore[misc]
        def preprocess(self, states: Any) -> torch.Tensor:
            return encoded(mine, states.tensor)

    class Uniform(nn.Module):
        input_dim, output_dim = mine.encoding_size, theirs.n_actions - 1

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*states.shape[:-1], self.output_dim)

    forward = MLP(mine.encoding_size, theirs.n_actions, HIDDEN, LAYERS, activation_fn="leaky_relu")
    one_hot = OneHot(mine.encoding_size)
    policies = [DiscretePolicyEstimator(forward, theirs.n_actions, one_hot), DiscretePolicyEstimator(Uniform(), theirs.n_actions, one_hot, True)]
    flow = TBGFlowNet(*policies)
    groups = [{"params": flow.pf_pb_parameters(), "lr": 1e-3}, {"params": flow.logz_parameters(), "lr": 0.1}]
    optimizer = torch.optim.Adam(groups, fused=True)

    def update() -> None:
        built = flow.sample_trajectories(theirs, n=batch, save_logprobs=True)
        optimizer.zero_grad()
        flow.loss(theirs, built, recalculate_all_logprobs=False).backward()
        optimizer.step()

    return update


def network_alone(batch: int) -> Callable[[], object]:
    """Forward and backward of the network on as many states as an update on bits has; no sampling, no loss, no optimiser."""
    environment = Bits(BITS, WORD)
    network = mlp((environment.encoding_size, *[HIDDEN] * LAYERS, environment.n_actions), last_linear=True)
    states = torch.rand(batch * environment.max_steps, environment.encoding_size)
    return lambda: network(states).sum().backward()


def speed(update: Callable[[], object], batch: int, seconds: float) -> Callable[[], float]:
    """Measures trajectories a second for a moment."""

    def measure() -> float:
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds or count < 3:
            update()
            count += 1
        return count * batch / passed

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/trajectories-cpu.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in ("hypergrid", "bits"):
        for batch in arguments.batches:
            ways = {"ours": ours(name, batch), "torchgfn": peer(name, batch)}
            if name == "bits":
                ways["network alone"] = network_alone(batch)
            for update in ways.values():
                update()
            found = in_turns({side: speed(update, batch, arguments.seconds) for side, update in ways.items()}, arguments.rounds)
            ratio = median_ratio(found["ours"], found["torchgfn"])
            medians = {side: round(sorted(values)[len(values) // 2], 1) for side, values in found.items()}
            rows.append({"environment": name, "batch": batch, "ratio": round(ratio, 2), **medians})
            if name == "bits":
                rows[-1]["products_alone"] = round(median_ratio(found["network alone"], found["torchgfn"]), 2)
            print(rows[-1], flush=True)
    least = min(rows, key=lambda row: row["ratio"])
    write_result(
        arguments.out,
        name="trajectories-cpu",
        what=f"trajectories/s of trajectory balance, MLP {LAYERS} x {HIDDEN}, one thread; the smallest ratio of {len(rows)}:"
        f" {least['environment']}, batch {least['batch']}",
        ours={"trajectories_per_second": least["ours"]},
        peer={"trajectories_per_second": least["torchgfn"], "library": f"torchgfn {version('torchgfn')}"},
        ratio=least["ratio"],
        must=MUST,
        aim=AIM,
        command=f"python -m benchmarks.trajectories --batches {' '.join(map(str, arguments.batches))} --rounds {arguments.rounds}",
        rows=rows,
    )


if __name__ == "__main__":
    main()
