"""A step of a continued run against `transformers.Trainer` (`shared/peers/transformers_peers.py trainer-lm`, as it is): tokens/s, data included.

python -m benchmarks.continue_step [--batch 4] [--seq 256] [--compile] [--device cpu] [--precision fp32] ...

Ours is `pretrain causal-lm --init FOLDER` whole: a GPT-2 of the peer's size in a transformers folder, the documentation on this machine as text, rows
packed from whole documents, one log line a step; on a GPU compiled, as a run of an hour would be. The peer trains the same network on random rows.
Both are processes of their own, in turns; a side's figure is the median of its steps after the warm-up, the result's the median of the rounds. What
packing leaves of a row stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.parts import median_ratio
from benchmarks.result import write_result
from benchmarks.training_step import PEERS, last_json

LINES = {("cpu", False): (1.2, 1.5), ("cpu", True): (1.15, 1.15), ("cuda", False): (2.6, 2.6), ("cuda", True): (1.15, 1.15)}
"""(Device, whether the peer is compiled) -> the ratio that must be reached, and that which should."""
VOCABULARY = 4096
"""Of the tokenizer of our text; the network has all 50,257 rows of the peer's, so that both compute the same."""
DOCUMENTS = 300
"""That the tokenizer learns from."""
PACKED = 0.98
"""Share of a row's places that must hold text."""


def model_folder(folder: Path) -> Path:
    """The peer's GPT-2 with random weights, and a tokenizer of the text, as transformers saves them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from headstart.data.text.config import TextConfig
    from headstart.data.text.head import documents

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(islice(documents(["builtin:python-docs"], TextConfig()), DOCUMENTS), trainer)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end).save_pretrained(folder)
    return folder


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """This process continues the folder for a few steps: tokens/s, peak memory in MiB, and how its rows are filled."""
    import torch

    from headstart.core.run import read_lines
    from headstart.data.text.store import open_text_store
    from headstart.methods import load
    from headstart.verbs.pretrain import pretrain

    torch.set_num_threads(arguments.threads)
    folder, steps = Path(arguments.folder), arguments.warmup + arguments.steps * arguments.repeats
    settings = {
        "init": folder / "model", "batch": arguments.batch, "method.sequence_length": arguments.seq, "budget.steps": steps,
        "device": arguments.device, "precision": arguments.precision, "optimizer.learning_rate": 1e-4, "trainer.micro_batch": arguments.batch,
        "trainer.compile": "on" if arguments.device == "cuda" else "auto",
        "trainer.log_every": 1, "trainer.evaluate_every": steps, "trainer.evaluate_rows": arguments.batch, "trainer.checkpoint_every": steps,
    }  # fmt: skip
    out = folder / "runs" / str(os.getpid())  # the store beside it is made once for all rounds
    run = pretrain("causal-lm", arguments.data, out=out, say=lambda line: print(line, file=sys.stderr), **settings)
    clock = [line["wall_s"] for line in read_lines(run.folder / "metrics.jsonl")]
    times = [after - before for before, after in zip(clock[arguments.warmup - 1 :], clock[arguments.warmup :], strict=False)]
    method = load("causal-lm")
    rows = method.rows(open_text_store(Path(run.info["data"][0]["store"])), method.Config(**run.info["config"]["method"]), "train")
    shutil.rmtree(out)
    second = statistics.median(times)
    unit = arguments.batch * arguments.seq
    peak = round(run.info["totals"]["peak_memory_bytes"] / 2**20)
    packing = {name: round(float(rows.report[name]), 4) for name in sorted(rows.report) if name.endswith("_share")}
    rate = {"tokens_per_s": round(unit / second, 1), "step_ms": round(1e3 * second, 2), "peak_mib": peak}
    return rate | {"precision": run.info["decisions"]["precision"], "packed": round(1 - packing.get("padding_share", 0.0), 4), **packing}


def theirs(arguments: argparse.Namespace) -> list[str]:
    """The peer's command."""
    numbers = ("batch", "seq", "device", "warmup", "steps", "repeats", "threads")
    command = [sys.executable, str(PEERS), "trainer-lm", "--precision", "fp32" if arguments.precision == "auto" else arguments.precision]
    command += [part for name in numbers for part in (f"--{name}", str(getattr(arguments, name)))]
    return command + (["--compile"] if arguments.compile else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--compile", action="store_true", help="of the peer")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--data", default="builtin:python-docs", help="text for ours; the peer draws numbers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--worker", dest="folder", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(json.dumps(ours(arguments)))
        return
    command = sys.argv[1:]
    mine, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        model_folder(Path(folder) / "model")
        for _ in range(arguments.rounds):
            peer.append(last_json(theirs(arguments)))
            mine.append(last_json([sys.executable, "-m", "benchmarks.continue_step", *command, "--worker", folder]))
            print(f"ours {mine[-1]['tokens_per_s']:,.1f} tokens/s, {mine[-1]['peak_mib']:,} MiB ({mine[-1]['precision']});"
                  f" peer {peer[-1]['tokens_per_s']:,.1f} tokens/s, {peer[-1]['peak_mib']:,} MiB")  # fmt: skip
    packed = mine[-1]["packed"]
    print(f"packing: {packed:.2%} of the places of a row hold text (must: {PACKED:.0%}); cropped {mine[-1].get('cropped_share', 0.0):.2%}")
    sides = [{name: statistics.median(one[name] for one in found) for name in ("tokens_per_s", "step_ms", "peak_mib")} for found in (mine, peer)]
    name = f"continue-lm-gpt2-{arguments.device}-{arguments.precision}" + ("-compiled" if arguments.compile else "")
    must, aim = LINES[arguments.device, arguments.compile]
    write_result(
        arguments.out or Path("benchmarks/results") / f"{name}.json",
        name=name,
        what=f"tokens/s of a continued run, GPT-2 124 M, {arguments.batch} x {arguments.seq}, {arguments.threads} threads, data loading included;"
        f" the sides in turns, medians of {arguments.rounds} rounds",
        ours={**sides[0], "precision": mine[-1]["precision"]},
        peer={**sides[1], "precision": "fp32" if arguments.precision == "auto" else arguments.precision, "compiled": arguments.compile},
        ratio=median_ratio([one["step_ms"] for one in peer], [one["step_ms"] for one in mine]),
        must=must,
        aim=aim,
        packing={"text": packed, "must": PACKED, "cropped": mine[-1].get("cropped_share", 0.0)},
        command=" ".join(["python -m benchmarks.continue_step", *(word for word in command if word not in ("--out", str(arguments.out)))]),
    )


if __name__ == "__main__":
    main()
