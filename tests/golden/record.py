"""Golden traces: 50 CPU losses of a very small model of each method, and its backbone with one input and output.

They notice what no other test notices: a change of initialisation, order of rows, masking, schedule, optimiser or loss. A commit that moves them
says why. Write them anew with

    python -m tests.golden.record --write
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from headstart.core import hardware
from headstart.core.run import read_lines
from headstart.verbs.pretrain import pretrain
from headstart.verbs.sample import load_run

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus.txt"
STEPS = 50
SETTINGS: dict[str, Any] = {
    "batch": 8,
    "device": "cpu",
    "precision": "fp32",
    "budget.steps": STEPS,
    "method.hidden_size": 32,
    "method.num_layers": 1,
    "method.num_heads": 2,
    "method.intermediate_size": 48,
    "method.sequence_length": 32,
    "text.vocab_size": 300,
    "text.document_split": "blank-line",
    "trainer.log_every": 1,
    "trainer.evaluate_every": STEPS,
    "trainer.checkpoint_every": STEPS,
    "trainer.micro_batch": 8,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": {},
    "mlm": {"method.causal_start": 10},
    "electra": {"method.causal_start": 10, "method.generator_start": 10},
}


def trace(slug: str) -> dict[str, Any]:
    """{"losses": float [50], "phases": the phase of each, "weights": backbone, "input_ids": int64 [2, 16], "output": float32 [2, 16, 32]}."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would add in another order
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = pretrain(slug, CORPUS, out=Path(folder) / "run", say=lambda line: None, **SETTINGS, **OF_METHOD[slug])
            lines = list(read_lines(run.folder / "metrics.jsonl"))
            method, _, _ = load_run(run.folder)
        ids = input_ids(method.vocab_size)
        weights = {name: value.clone() for name, value in method.backbone().state_dict().items()}
        return {
            "losses": [line["loss"] for line in lines],
            "phases": [line["phase"] for line in lines],
            "weights": weights,
            "input_ids": ids,
            "output": output(method, ids),
        }
    finally:
        torch.set_num_threads(threads)


def input_ids(vocab_size: int) -> Tensor:
    """int64 [2, 16]: token ids that depend on nothing."""
    return (torch.arange(32) * 37 % (vocab_size - 5) + 5).view(2, 16)


@torch.no_grad()
def output(method: Any, ids: Tensor) -> Tensor:
    """float32 [2, 16, 32]: the hidden states of the backbone."""
    method.eval()
    return method.hidden_states({"input_ids": ids}).clone()


def machine_class() -> dict[str, str]:
    """Where floats come out bit for bit the same."""
    kernels = f"{torch.backends.cpu.get_cpu_capability()} of {' '.join(hardware.cpu_flags())}"
    return {"cpu": hardware.cpu_name(), "kernels": kernels, "torch": torch.__version__}


def write() -> None:
    for slug in OF_METHOD:
        found = trace(slug)
        record = {"machine": machine_class(), "steps": STEPS, "losses": found["losses"], "phases": found["phases"]}
        (FOLDER / f"{slug}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        save_file(found["weights"] | {"input_ids": found["input_ids"], "output": found["output"]}, FOLDER / f"{slug}.safetensors")
        print(f"{slug}: loss {found['losses'][0]:.4f} -> {found['losses'][-1]:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Golden traces")
    parser.add_argument("--write", action="store_true", required=True, help="replace the recorded traces")
    parser.parse_args()
    write()
