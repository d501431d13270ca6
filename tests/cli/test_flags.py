"""Wrong flags and values: two lines that say what is wrong and what to write, before anything heavy is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headstart.cli import pretrain
from headstart.cli._flags import Parser, flags_of, from_dataclass, named
from headstart.cli.main import main
from headstart.cli.pretrain import refuse
from headstart.core.config import plain
from headstart.core.errors import UsageError
from headstart.core.run import FORMAT_VERSION
from headstart.verbs.config import PretrainConfig
from tests.running import environment

PRETRAIN = ["pretrain", "mlm", "--data", "."]


@pytest.mark.parametrize(
    ("arguments", "what", "mend"),
    [
        (["pretrian", "mlm"], "there is no verb 'pretrian'.", "Did you mean pretrain? `headstart --help` explains them."),
        (["pretrain", "mml"], "There is no method 'mml'.", "Did you mean mlm? `headstart list` shows all."),
        (["pretrain", "mlm", "--preset", "tini"], "mlm has no preset 'tini'.", "Did you mean tiny? Its presets: tiny, small, base."),
        ([*PRETRAIN, "--budget.minute", "3"], "There is no flag --budget.minute.", "Did you mean --budget.minutes? "),
        ([*PRETRAIN, "--hidden-size=3"], "There is no flag --hidden-size.", "Did you mean --method.hidden-size? "),
        ([*PRETRAIN, "--foo"], "There is no flag --foo.", "`headstart pretrain mlm --help` explains the flags."),
        ([*PRETRAIN, "--optimizer"], "--optimizer is a group of flags.", "Name one of it: --optimizer.name, --optimizer.learning-rate, "),
        ([*PRETRAIN, "--seed", "three"], "--seed cannot be 'three'.", "It takes: whole number. Decides initialisation"),
        ([*PRETRAIN, "--seed=three"], "--seed cannot be 'three'.", "It takes: whole number. "),
        ([*PRETRAIN, "--batch", "1.5"], "--batch cannot be '1.5'.", "It takes: whole number. Global batch in rows"),
        ([*PRETRAIN, "--precision", "bf61"], "--precision cannot be 'bf61'.", "Did you mean bf16? It takes: auto, fp32, bf16 or fp8. "),
        ([*PRETRAIN, "--mixture.weights", "a", "b"], "--mixture.weights cannot be 'a b'.", "It takes: number, several. "),
        ([*PRETRAIN, "--budget.steps"], "--budget.steps needs a value.", "It takes: whole number. "),
        ([*PRETRAIN, "--smoke", "maybe"], "'maybe' belongs to no flag.", "`headstart pretrain mlm --help` explains the flags."),
        ([*PRETRAIN, "--preset"], "Argument --preset: expected one argument.", "`headstart pretrain mlm --help` explains the flags."),
        (["prepare", "mlm", "--text.vocabsize", "9"], "There is no flag --text.vocabsize.", "Did you mean --text.vocab-size? "),
        (["profile", "mlm", "--bach", "9"], "There is no flag --bach.", "Did you mean --batch? `headstart profile mlm --help` explains the flags."),
        (["finetune", "clasification"], "There is no task 'clasification'.", "Did you mean classification? The tasks: "),
        (["finetune", "tagging", "--epoch", "3"], "There is no flag --epoch.", "Did you mean --epochs? "),
        (["advise", "--budget.minute", "3"], "There is no flag --budget.minute.", "Did you mean --budget.minutes? "),
        (["compare", "a", "--label", "3"], "There is no flag --label.", "Did you mean --labels? `headstart compare --help` explains the flags."),
        (["compare", "--labels", "a", "b"], "'b' belongs to no flag.", "`headstart compare --help` explains the flags. What has no flag comes first"),
        (["adapt", "x", "--calls", "32", "--calls", "nan"], "--calls cannot be 'nan'.", "It takes: whole number. "),
        (["embed", "x", "--data", "y", "--device", "gpu"], "There is no device 'gpu' (--device).", "Did you mean cuda? "),
        (["compare", "x", "--task", "regresion"], "There is no comparison on the task 'regresion'.", "Did you mean regression? The tasks: "),
        (["claim", "elektra"], "There is no claim 'elektra'.", "Did you mean electra? The claims: "),
        (["claim", "electra", "--preset", "smok"], "There is no preset 'smok'.", "Did you mean smoke? The presets of a claim: smoke, cpu, gpu."),
        (["peek", "x", "--cont", "3"], "Unrecognized arguments: --cont 3.", "Did you mean --count? `headstart peek --help` explains the flags."),
        (["report", "--serve", "--out", "x.html"], "--serve writes no file.", "Leave out --out, or leave out --serve."),
        (["peek"], "The following arguments are required: store.", "`headstart peek --help` explains the flags."),
        (["replay", "x", "--step", "y"], "Argument --step: invalid int value: 'y'.", "`headstart replay --help` explains the flags."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_and_what_to_write(arguments: list[str], what: str, mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    verb = "" if "no verb" in what else f" {arguments[0]}"
    assert first == f"headstart{verb}: {what}"
    assert second.startswith(mend)
    assert printed.out == ""


REFUSED = [
    ["pretrain", "mlm", "--foo"],
    ["pretrain", "mlm", "--preset", "gigantic"],
    ["pretrain", "mlm", "--method.mask-ratio", "half"],
    ["pretrain", "nothing"],
    ["pretrain", "mlm"],
    ["pretrain", "mlm", "--data", "."],
    ["pretrain", "mlm", "--data", "nowhere", "--budget.minutes", "1"],
    ["pretrain", "mlm", "--data", "nowhere", "--smoke"],
    ["pretrain", "mlm", "--data", ".", "--init", "nowhere", "--budget.minutes", "1"],
    ["pretrain", "mlm", "--data", ".", "--budget.minutes", "-1"],
    ["pretrain", "mlm", "--config", "nowhere.yaml"],
    ["pretrain", "mlm", "--data", ".", "--out", "run", "--budget.minutes", "1"],
    ["prepare", "mlm", "--data", "nowhere", "--out", "store"],
    ["prepare", "mlm", "--data", "."],
    ["profile", "mlm", "--data", "nowhere"],
    ["finetune", "juggling"],
    ["finetune", "classification", "--init", "nowhere"],
    ["finetune", "classification", "--init", "nowhere", "--train", "a", "--test", "b"],
    ["finetune", "classification", "--init", ".", "--train", "nowhere", "--test", "nowhere"],
    ["advise", "--foo"],
    ["advise", "--data", "nowhere", "--budget.minutes", "3"],
    ["claim", "nothing"],
    ["claim", "electra", "--preset", "nope"],
    ["claim", "--all", "--seeds", "0"],
    ["compare", "nowhere"],
    ["compare", "--help"],
    ["merge", ".", ".", "--shares", "0.3", "0.8"],
    ["merge", ".", "nowhere"],
    ["embed", ".", "--data", "nowhere"],
    ["evaluate", ".", "--text", "nowhere"],
    ["rerank", ".", "--queries", "nowhere", "--documents", "nowhere"],
    ["export", "nowhere", "--to", "model"],
    ["import", "nowhere", "--out", "model"],
    ["sample", "nowhere"],
    ["replay", "nowhere", "--step", "1"],
    ["peek", "nowhere"],
    ["report", "--serve", "--out", "x.html"],
    ["watch", "nowhere"],
    ["show", "nothing"],
    ["show", "electra"],
    ["pretrain", "electra", "--help"],
    ["finetune", "tagging", "--help"],
]


def without_torch(arguments: list[str], folder: Path) -> str:
    """What a command prints on standard error that ends before torch is imported."""
    code = (
        "import sys; from headstart.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'transformers', 'tensorboard'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_refusal_and_a_page_of_help_need_no_torch(arguments: list[str], tmp_path: Path) -> None:
    without_torch(arguments, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_other_settings_is_refused_without_torch(tmp_path: Path) -> None:
    """Only once it has a checkpoint: before that there is nothing to continue."""
    config = pretrain.parse(["mlm", "--data", "x", "--budget.steps", "3"]).config
    info = {"format_version": FORMAT_VERSION, "status": "stopped", "method": "mlm", "config": plain(config), "checkpoint": {"step": 2, "folder": "x"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    command = ["pretrain", "mlm", "--data", "x", "--out", "run", "--budget.steps"]
    first, second = without_torch([*command, "4"], tmp_path).splitlines()
    assert first == "headstart pretrain: run holds a run with other settings (budget.steps: 3 -> 4)."
    assert "give a new run its own --out" in second
    assert "--init run --out ANOTHER_FOLDER" in second
    assert "a run of mlm, not of causal-lm" in without_torch(["pretrain", "causal-lm", *command[2:], "3"], tmp_path)
    refuse(pretrain.parse(["mlm", "--data", "x", "--out", str(tmp_path / "run"), "--budget.steps", "3"]))  # the same command


@dataclass
class Inner:
    use_it: bool = True
    """A switch."""


@dataclass
class Outer:
    name: str = ""
    """A name."""
    inner: Inner = field(default_factory=Inner)


def test_a_switch_has_two_forms_inside_its_group() -> None:
    assert [flag.name for flag in flags_of(Outer())] == ["--name", "--inner.use-it", "--inner.no-use-it"]
    assert from_dataclass(Outer(), ["--inner.no-use-it", "--name", "x"], "test", "") == Outer("x", Inner(False))


def test_what_is_known_as_a_flag_is_what_the_parser_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The two must not drift apart: otherwise a person is told of flags that do not exist."""
    monkeypatch.setenv("COLUMNS", "100")  # one column
    with pytest.raises(SystemExit):
        from_dataclass(PretrainConfig(), ["--help"], "test", "")
    printed = capsys.readouterr().out
    heads = [line for line in printed.splitlines() if re.match(r"\W*--", line)]
    listed = {flag for head in heads for flag in re.findall(r"--[a-z][\w.-]*", head)}
    assert listed == {flag.name for flag in flags_of(PretrainConfig())}


def test_flags_name_settings() -> None:
    assert named(["--method.hidden-size", "64", "--no-smoke", "--trainer.no-compile", "--seed=3"])[:4] == [
        "method.hidden_size", "no_smoke", "trainer.no_compile", "seed",
    ]  # fmt: skip
    assert {"smoke", "trainer.compile"} <= set(named(["--no-smoke", "--trainer.no-compile"]))


def test_a_flag_is_written_in_full() -> None:
    parser = Parser(prog="test")
    parser.add_argument("--count", type=int)
    with pytest.raises(UsageError, match="Unrecognized arguments: --cou"):
        parser.parse_args(["--cou", "3"])
