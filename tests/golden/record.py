"""Golden traces: 50 CPU losses of a very small model of each method, and its backbone with one input and output.

They notice what no other test notices: a change of initialisation, order of rows, masking, schedule, optimiser or loss. A commit that moves them
says why. Write them anew with

    python -m tests.golden.record --write [SLUG ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
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
    "trainer.log_every": 1,
    "trainer.evaluate_every": STEPS,
    "trainer.checkpoint_every": STEPS,
    "trainer.micro_batch": 8,
}
ON_TEXT = SETTINGS | {
    "method.intermediate_size": 48,
    "method.sequence_length": 32,
    "text.vocab_size": 300,
    "text.document_split": "blank-line",
}
ON_IMAGES = SETTINGS | {
    "method.image_size": 16,
    "method.patch_size": 4,
    "method.decoder_hidden_size": 16,
    "method.decoder_layers": 1,
    "method.decoder_heads": 2,
    "image.size": 16,
}
ON_ENVIRONMENT = {name: value for name, value in SETTINGS.items() if name != "method.num_heads"} | {"environment.length": 4}
ON_INTERLEAVED = SETTINGS | {
    "method.intermediate_size": 48,
    "method.sequence_length": 48,
    "method.latents": 4,
    "method.resampler_layers": 1,
    "method.vision_tower": str(FOLDER / "tower"),
    "interleaved.vocab_size": 300,
    "interleaved.image_size": 16,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": ON_TEXT,
    "mlm": ON_TEXT | {"method.causal_start": 10},
    "bioptimus": ON_TEXT | {"optimizer.learning_rate": 1e-2, "method.rates": (1.0, 1.0, 1.0, 1.0), "method.lengths": (1.0, 1.0, 1.0, 2.0)},
    "medical_bert": ON_TEXT | {"text.vocabulary": "amplified", "text.sentence_split": "rules", "method.shard_bytes": 4000, "method.causal_start": 10},
    "prop": ON_TEXT | {"method.least_count": 1, "method.min_doc_words": 3, "method.short_doc_tokens": 0, "method.set_vocabulary": 100},
    "electra": ON_TEXT | {"method.causal_start": 10, "method.generator_start": 10},
    "mae": ON_IMAGES,
    "droppos": ON_IMAGES,
    "satmaepp": ON_IMAGES | {"method.groups": ("1", "2,3")},
    "croco": ON_IMAGES | {"image.pairing": "twos", "image.size": 18},  # each view is cut at a place of its own
    "oc_gfn": ON_ENVIRONMENT,
    "interleaved-lm": ON_INTERLEAVED,
}


def trace(slug: str) -> dict[str, Any]:
    """{"losses": float [50], "phases": the phase of each, "weights": backbone, "batch": two rows, "output": what the backbone makes of them}."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would add in another order
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = pretrain(slug, corpus(slug, Path(folder)), out=Path(folder) / "run", say=lambda line: None, **OF_METHOD[slug])
            lines = list(read_lines(run.folder / "metrics.jsonl"))
            method, _, _ = load_run(run.folder)
        batch = two_rows(method)
        weights = {name: value.clone() for name, value in method.backbone().state_dict().items()}
        return {
            "losses": [line["loss"] for line in lines],
            "phases": [line["phase"] for line in lines],
            "weights": weights,
            "batch": batch,
            "output": output(method, batch),
        }
    finally:
        torch.set_num_threads(threads)


def corpus(slug: str, folder: Path) -> list[Path | str]:
    """What a method is trained on; pictures are written into `folder`."""
    if OF_METHOD[slug] is ON_ENVIRONMENT:
        return ["builtin:tfbind8"]
    if slug == "medical_bert":
        return two_corpora(folder)
    if OF_METHOD[slug].items() >= ON_TEXT.items():
        return [CORPUS]
    if OF_METHOD[slug] is ON_INTERLEAVED:
        return [pages(folder)]
    np.savez(folder / "images.npz", images=pictures(60))
    return [folder / "images.npz"]


def two_corpora(folder: Path) -> list[Path | str]:
    """A sixth of the corpus, and the rest."""
    paragraphs = [block for block in CORPUS.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    found: list[Path | str] = []
    for name, blocks in (("small", paragraphs[::6]), ("large", [block for i, block in enumerate(paragraphs) if i % 6])):
        found.append(folder / f"{name}.txt")
        (folder / f"{name}.txt").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return found


def pages(folder: Path) -> Path:
    """The paragraphs of the corpus, each cut in two around a picture."""
    with (folder / "pages.jsonl").open("w", encoding="utf-8") as lines:
        paragraphs = [block for block in CORPUS.read_text(encoding="utf-8").split("\n\n") if block.strip()]
        for number, (block, picture) in enumerate(zip(paragraphs, pictures(len(paragraphs)), strict=True)):
            np.save(folder / f"{number}.npy", picture)
            half = len(block) // 2
            record = {"text_list": [block[:half], None, block[half:]], "image_list": [None, f"{number}.npy", None]}
            lines.write(json.dumps(record) + "\n")
    return folder / "pages.jsonl"


def pictures(count: int) -> np.ndarray:
    """uint8 [count, 16, 16, 3], by whole numbers: slopes whose steepness and start differ, so that brightness says something of the place."""
    i, y, x, c = np.ogrid[:count, :16, :16, :3]
    return ((x * (5 + i % 4) + y * (3 + c) + i * 11 + x * y * (i % 3) // 4) % 256).astype(np.uint8)


def two_rows(method: Any) -> dict[str, Tensor]:
    """A batch that depends on nothing: int64 [2, 16] token ids, uint8 [2, 3, 16, 16] pictures, or int64 [2, 4] words of DNA."""
    if hasattr(method, "environment"):
        return {"outcome": method.environment.objects()[[27, 200]]}
    if hasattr(method, "vocab_size"):
        return {"input_ids": (torch.arange(32) * 37 % (method.vocab_size - 5) + 5).view(2, 16)}
    return {"images": torch.from_numpy(pictures(2)).permute(0, 3, 1, 2).contiguous()}


@torch.no_grad()
def output(method: Any, batch: dict[str, Tensor]) -> Tensor:
    """float32 [2, tokens, 32]: the last features of the backbone; of words float32 [2, 32]."""
    method.eval()
    if "outcome" in batch:
        return method.embed(batch).clone()
    found = method.hidden_states(batch) if "input_ids" in batch else method.backbone()(method.plain(batch))
    return found.clone()


def machine_class() -> dict[str, str]:
    """Where floats come out bit for bit the same."""
    kernels = f"{torch.backends.cpu.get_cpu_capability()} of {' '.join(hardware.cpu_flags())}"
    return {"cpu": hardware.cpu_name(), "kernels": kernels, "torch": torch.__version__}


def write(slugs: list[str]) -> None:
    for slug in slugs or OF_METHOD:
        found = trace(slug)
        record = {"machine": machine_class(), "steps": STEPS, "losses": found["losses"], "phases": found["phases"]}
        (FOLDER / f"{slug}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        save_file(found["weights"] | found["batch"] | {"output": found["output"]}, FOLDER / f"{slug}.safetensors")
        print(f"{slug}: loss {found['losses'][0]:.4f} -> {found['losses'][-1]:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Golden traces")
    parser.add_argument("--write", action="store_true", required=True, help="replace the recorded traces")
    parser.add_argument("slugs", nargs="*", help="of these methods; all by default")
    write(parser.parse_args().slugs)
