"""The commands on a page, and each of them on small data: what a reader types is what runs, only smaller.

A command is a line of a ```bash block, or code within a line that begins with a program. Nothing is passed over silently: a line is run, or it is a
form with placeholders (its verb must exist), or `ELSEWHERE` says who runs it, or the test fails.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from headstart import catalog, methods
from headstart.cli.main import VERBS
from headstart.verbs._finetune_settings import DENSE
from tests.running import TINY, flags

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:(?:headstart|torchrun|python3?|pip|make|sbatch|mkdocs) [^`\n]+|nvidia-smi))`(?!`)")
SMALL = TINY | {"budget.steps": 6, "text.held_out_share": 0.2}  # enough held-out documents to compare networks on
SMALL_IMAGES: dict[str, Any] = {
    "batch": 8, "device": "cpu", "precision": "fp32", "budget.steps": 6, "image.size": 16, "image.held_out_share": 0.2,
    "method.image_size": 16, "method.patch_size": 4, "method.hidden_size": 32, "method.num_layers": 1, "method.num_heads": 2,
    "method.decoder_hidden_size": 16, "method.decoder_layers": 1, "method.decoder_heads": 2,
}  # fmt: skip
SMALL_ENVIRONMENT: dict[str, Any] = {"batch": 8, "device": "cpu", "precision": "fp32", "budget.steps": 6, "method.hidden_size": 16}

ELSEWHERE = {
    r"make [\w-]+": "the targets are in the Makefile; CI runs install, lint, docs and test",
    r"pip install( --index-url \S+)? [^;|&]+": "CI installs from constraints.txt",
    r"git clone REPOSITORY headstart && cd headstart": "the reader has the repository",
    r"python3? -m venv .*": "CI makes an environment so",
    r"python tools/(fill_docs|import_graph)\.py( --check)?": "make lint runs it",
    r"python -m (benchmarks|tools)\.\w+.*": "the module is there; it takes minutes",
    r"python examples/\w+\.py.*": "tests/examples",
    r"python -c .*": "prints what torch is",
    r"python -X importtime": "a way of measuring",
    r"sbatch .*": "tests/examples/test_slurm.py runs the script",
    r"mkdocs (serve|build --strict)": "make docs",
    r"nvidia-smi": "belongs to the driver",
}
"""Commands that this test does not run -> who does, or why nobody needs to."""


PARSED_ONLY = {
    r"headstart claim .*": "tests/claims runs every claim's preset smoke",
    r"headstart pretrain interleaved-lm .*": "needs a language model and a tower; tests/methods/test_interleaved_lm.py goes through the stages",
    r"headstart plan .*": "tests/verbs/test_plan_cpt.py runs both forms whole",
    r"headstart merge .*": "tests/interop/test_merge.py",
    r"headstart import .*": "tests/verbs/test_import.py",
    r"headstart report .*--serve.*": "does not end; tests/report",
    r"headstart adapt runs/(rna|amp) .*": "needs packages of the extra design; tests/data/environments/test_rewards.py reads these rewards",
    r"headstart curate .* --engine ray .*": "tests/curate/test_pipeline.py runs it on two local workers",
    r"headstart demo.*": "make demo takes six minutes",
}
"""Commands whose flags are read, and that then stop -> who runs them."""


def commands(text: str) -> list[str]:
    """Every command of a page, in order; blocks first."""
    blocks = [body for _, language, body in FENCE.findall(text) if language in ("bash", "sh")]
    lines = [line.strip() for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    found = [line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")]
    found += [match.strip() for match in INLINE.findall(FENCE.sub("", text))]
    return list(dict.fromkeys(found))


def elsewhere(command: str) -> bool:
    """Whether somebody else runs it; what it names must be there."""
    if not any(re.fullmatch(pattern, command) for pattern in ELSEWHERE):
        return False
    if target := re.fullmatch(r"make ([\w-]+)", command):
        assert re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    if module := re.match(r"python -m (benchmarks|tools)\.(\w+)", command):
        assert (ROOT / module[1] / f"{module[2]}.py").is_file(), command
    if script := re.match(r"(?:python|sbatch) ((?:tools|examples)/\S+)", command):
        assert (ROOT / script[1]).is_file(), command
    return True


def is_form(command: str) -> bool:
    """`headstart show METHOD`, `headstart VERB ...`, `headstart pretrain`: how a command is made, not one. Its verb must be one."""
    words = shlex.split(command)
    words = words[2:] if words[:2] == ["python", "-m"] else words
    if command == "torchrun -m headstart ...":
        return True
    if words[-1] in ("--data", "--out", "--max-restarts"):  # a flag is spoken of
        return True
    if words[0] != "headstart":
        return False
    placeholder = "..." in command or any(re.fullmatch(r"[A-Z][A-Z_]+(:\w+)?|\[.*|.*\]", word) for word in words[1:])
    alone = len(words) == 1 or (len(words) == 2 and words[1] not in ("list", "doctor", "report"))
    if (placeholder or alone) and words[1:]:
        assert words[1] in {*VERBS, "VERB", "--help"}, command
    return placeholder or alone


def small(command: str) -> list[str]:
    """The command on small data, from its verb on. What the page says wins over what makes it small, budgets and numbers of repeats apart."""
    words = shlex.split(command)
    words = words[words.index("headstart") + 1 :]
    words = [word.replace("/shared/texts", "my/texts").replace("/shared/", "").replace("s3://BUCKET", "bucket") for word in words]
    verb = words[0]
    if verb in ("pretrain", "profile"):
        kept = _without(words[2:], r"--budget\..*")
        kept = ["off" if before == "--trainer.compile" else word for before, word in zip(["", *kept], kept, strict=False)]  # a minute of compiling
        size = r"method\..*|text\.vocab_size" if "--init" in kept else ""  # the model that is continued has its own
        if any(word.startswith("stores/") for word in kept):  # and a prepared store was made as it was made
            size = r"text\..*|image\..*"
        settings = SMALL_IMAGES if of_images(words[1]) else SMALL_ENVIRONMENT if words[1] == "oc_gfn" else SMALL
        if words[1] == "interleaved-lm":  # its data have a group of their own
            settings = {name: value for name, value in settings.items() if not name.startswith("text.")}
        if "--rewarm.preset" in kept:  # a rise and a decay have a least length
            settings = settings | {"budget.steps": 24}
        return [*words[:2], *flags({name: value for name, value in settings.items() if not re.fullmatch(size, name)}), *kept]
    if verb == "adapt":
        return [*_without(words, "--calls"), "--calls", "20"]
    if verb == "finetune" and words[1] in ("image-classification", *DENSE):
        return [*words, "--epochs", "1", "--device", "cpu", "--seeds", "2"]
    if verb == "finetune":
        return [*words, "--epochs", "1", "--device", "cpu", "--max-length", "32", "--seeds", "2"]
    if verb == "prepare":
        return words if of_images(words[1]) else [*words, "--text.vocab-size", "300"]
    if verb == "replay":
        return [*_without(words, "--step"), "--step", "4"]
    if verb == "measure" and words[1] == "sharpness":
        return [*words, "--batches", "2", "--batch", "8", "--probes", "4", "--iterations", "2"]
    if verb == "fit":
        return [*words, "--draws", "4"]
    if verb == "compare":
        return [*_without(words, r"--budget\..*"), "--measure", "linear-probe", "--seeds", "3"]
    if verb == "advise":
        return [*_without(words, r"--budget\..*"), "--budget.minutes", "0.2"]
    return words


def of_images(slug: str) -> bool:
    """Whether a method reads images."""
    return catalog.implemented(slug) and methods.settings(slug).data_group == "image"


def _without(words: list[str], flag: str) -> list[str]:
    """The words without a flag and its value."""
    gone = {place for i, word in enumerate(words) if re.fullmatch(flag, word) for place in (i, i + 1)}
    return [word for i, word in enumerate(words) if i not in gone]


def made_folder(words: list[str]) -> Path:
    """Where a `pretrain` or `prepare` command writes."""
    if "--out" in words:
        return Path(words[words.index("--out") + 1])
    preset, seed = (words[words.index(flag) + 1] if flag in words else standard for flag, standard in (("--preset", "tiny"), ("--seed", "0")))
    return Path("runs") / (f"{words[1]}-{preset}-{seed}" + ("-smoke" if "--smoke" in words else ""))
