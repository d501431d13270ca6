"""Hessian traces against the loop of the paper's script (Liuhong99/implicitbiasmlmcode pcfg/calculate_hessian.py, as it works: of every probe a batch
of its own, one gradient with its graph, one Gaussian direction, one product).

The network is the claim's, an encoder of two layers of 64 on a language of 16 words, trained for a moment; the loss hides one place of each sentence.
Both sides make as many estimates, in turns. The ratio is that of the seconds to one standard error: time of an estimate times its variance.

python -m benchmarks.trace [--sentences 512] [--probes 32] [--out benchmarks/results/trace.json]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.parts import median_ratio
from benchmarks.result import write_result
from headstart.claims import implicit_bias as claim
from headstart.engine import sharpness
from headstart.verbs.pretrain import pretrain


def loop(losses: list[sharpness.Loss], parameters: sharpness.Parameters, generator: torch.Generator) -> list[float]:
    """An estimate of each loss, as the script makes them."""
    found = []
    for loss in losses:
        of = torch.autograd.grad(loss(), list(parameters.values()), create_graph=True)
        v = [torch.randn(parameter.shape, generator=generator) for parameter in parameters.values()]
        along = torch.stack([(gradient * part).sum() for gradient, part in zip(of, v, strict=True)]).sum()
        product = torch.autograd.grad(along, list(parameters.values()))
        found.append(float(sum((part * image).sum() for part, image in zip(v, product, strict=True))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--probes", type=int, default=32, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/trace.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trunk = claim.trunk("trace", "tiny", claim.network(64), 200, 200)
    with tempfile.TemporaryDirectory() as folder:
        settings = {**claim.SETTINGS, **trunk.settings, "device": "cpu", "optimizer.learning_rate": 3e-3}
        run = pretrain("mlm", "builtin:pcfg-tiny?sentences=30000", out=Path(folder) / "run", say=lambda line: None, **settings)
        model, words = claim.model_and_words(run.export, "tiny", "cpu")
    device, probes = torch.device("cpu"), arguments.probes
    same = claim.hidden_place_loss(model, words, "tiny", 0, arguments.sentences, device)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    estimates: dict[str, list[float]] = {"ours": [], "peer": []}
    parameters = sharpness.measured_parameters(model)
    with sharpness.still(model):
        for at in range(arguments.rounds):
            numbers = range(1 + at * probes, 1 + (at + 1) * probes)
            fresh = [claim.hidden_place_loss(model, words, "tiny", number, arguments.sentences, device) for number in numbers]
            began = time.perf_counter()
            estimates["peer"] += loop(fresh, parameters, generator)
            between = time.perf_counter()
            draws = sharpness.hutchinson_draws(same, parameters, probes, "rademacher", generator)
            estimates["ours"] += draws.sum(1).tolist()
            seconds["peer"].append(between - began)
            seconds["ours"].append(time.perf_counter() - between)
    sides = {}
    for side, found in estimates.items():
        values = torch.tensor(found, dtype=torch.float64)
        per_second = arguments.rounds * probes / sum(seconds[side])
        sides[side] = {"estimates_per_s": round(per_second, 2), "mean": round(float(values.mean()), 4), "deviation": round(float(values.std()), 4)}
    of_an_estimate = median_ratio(seconds["peer"], seconds["ours"])
    spread = (sides["peer"]["deviation"] / sides["ours"]["deviation"]) ** 2
    print(f"an estimate takes {of_an_estimate:.2f} x less time and has {spread:.2f} x less variance")
    write_result(
        arguments.out,
        name="trace",
        what=f"time to one standard error of a Hessian trace, 2 layers of 64, {arguments.sentences} sentences, {arguments.threads} threads;"
        f" {arguments.rounds} rounds of {probes} estimates in turns",
        ours=sides["ours"],
        peer=sides["peer"],
        ratio=of_an_estimate * spread,
        must=1.0,
        aim=2.0,
        command="python -m benchmarks.trace",
    )


if __name__ == "__main__":
    main()
