"""Numbers that no verb can have are refused by their flag, before anything heavy is loaded or a file is read."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from headstart import methods
from headstart.catalog import BASELINES, CARDS, implementation
from headstart.core.bounds import COUNT, SHARE, refuse_outside
from headstart.core.config import checked
from headstart.core.errors import UsageError
from headstart.engine.budget import Budget
from headstart.verbs import (
    _adapt_settings,
    _advise_settings,
    _compare_settings,
    _curate_settings,
    _evaluate_settings,
    _finetune_settings,
    _fit_settings,
    _measure_settings,
    _plan_settings,
    _select_settings,
)
from headstart.verbs._sizing import by_data
from headstart.verbs.config import check, config_class
from tests.running import environment

NOWHERE = Path("nowhere")
METHODS = [slug for slug in (*BASELINES, *CARDS) if (implementation(slug) or "").startswith("headstart.methods.")]
VERBS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    **{f"finetune {task}": (_finetune_settings.settings_of(task), _finetune_settings.check) for task in _finetune_settings.TASKS},
    "compare": (_compare_settings.CompareSettings, _compare_settings.check),
    "select": (_select_settings.SelectSettings, _select_settings.check),
    "adapt": (_adapt_settings.AdaptSettings, lambda settings: _adapt_settings.check(NOWHERE, settings)),
    "evaluate": (_evaluate_settings.EvaluateSettings, _evaluate_settings.check),
    "fit": (_fit_settings.FitSettings, _fit_settings.check),
    "plan dcpt": (_plan_settings.SweepSettings, _plan_settings.check_sweep),
    "plan cpt": (_plan_settings.CptSettings, _plan_settings.check_cpt),
    "measure sharpness": (_measure_settings.SharpnessSettings, _measure_settings.check),
    "measure loss-exact": (_measure_settings.ExactLossSettings, _measure_settings.check),
    "advise": (_advise_settings.AdviseSettings, _advise_settings.checked),
    "curate": (lambda: _curate_settings.settings_of("webmath"), _curate_settings.check),
}
ANY_NUMBER = {"nothing", "ignore_label"}
"""They name a value of the user's files, and NaN may be one."""


def numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, impossible value) of every number of a nested dataclass: NaN, infinity, -7."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{prefix}{field.name}.")
            continue
        parts = set(get_args(hint)) if get_origin(hint) in (tuple, UnionType) else {hint}
        wrap = tuple if get_origin(hint) is tuple else (lambda one: one[0])
        if float in parts:
            yield from ((prefix + field.name, wrap([odd])) for odd in (float("nan"), float("inf")))
        elif int in parts:
            yield prefix + field.name, wrap([-7])


def put(settings: Any, name: str, value: Any) -> Any:
    head, _, rest = name.partition(".")
    return dataclasses.replace(settings, **{head: put(getattr(settings, head), rest, value) if rest else value})


@pytest.mark.parametrize("verb", VERBS)
def test_every_impossible_number_of_every_verb_is_refused_by_its_flag(verb: str) -> None:
    """Nothing else is given, so whatever is looked at before the numbers would be missed first."""
    make, check = VERBS[verb]
    tried = [(name, value) for name, value in numbers(make()) if name not in ANY_NUMBER]
    assert tried
    for name, value in tried:
        with pytest.raises(UsageError) as refused:
            check(put(make(), name, value))
        assert refused.value.what.startswith(f"--{name.replace('_', '-')} is "), refused.value.what


@pytest.mark.parametrize("slug", METHODS)
def test_numbers_of_a_run_that_are_none_are_named_by_their_flags(slug: str) -> None:
    """Those of the method, its data, the optimiser and every intervention."""
    method = methods.settings(slug)
    config = config_class(method)(data=("nowhere",), budget=Budget(steps=1))
    for name, value in numbers(config):
        if isinstance(value, float) and not name.startswith("budget."):
            with pytest.raises(UsageError) as refused:
                check(by_data(slug, method, put(config, name, value), {name: "flag"})[0])
            assert refused.value.what == f"--{name.replace('_', '-')} is {value}."
    with pytest.raises(UsageError, match=r"method: learning_rate is nan\.\nGive a finite number"):
        checked(float("nan"), float | None, "method: learning_rate")


def refused(commands: dict[str, str], folder: Path) -> list[str]:
    """The first lines that the commands print when they are refused, one after another in a process that never loads torch."""
    code = (
        "import sys; from headstart.cli.main import main\n"
        f"codes = [main(command.split()) for command in {[*commands]!r}]\n"
        "print(*codes); sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"2", "3"}
    return [line.split(": ", 1)[1] for line in done.stderr.splitlines()[::2]]


def test_odd_numbers_are_refused_before_torch_is_loaded_and_a_file_is_read(tmp_path: Path) -> None:
    commands = {
        "finetune classification --init x --train a --test b --seeds 0": "--seeds is 0.",
        "finetune classification --init x --train a --test b --learning-rate -3": "--learning-rate is -3.",
        "finetune tagging --init x --train a --test b --epochs nan": "--epochs is nan.",
        "finetune image-classification --init x --train a --test b --epochs 0": "--epochs is 0.",
        "finetune depth --init x --train a --test b --learning-rates 1e-3 inf": "--learning-rates is inf.",
        "compare x --finetune.epochs 0": "--finetune.epochs is 0.",
        "compare x --finetune.regulariser.gamma 0": "--finetune.regulariser.gamma is 0.",
        "embed x --data y --shown 0": "--shown is 0.",
        "sample x --count -1": "--count is -1.",
        "replay x --step 0": "--step is 0.",
        "peek x --count 0": "--count is 0.",
        "demo --minutes nan": "--minutes is nan.",
        "curate webmath x --out y --prefilter.min-bytes -1": "--prefilter.min-bytes is -1.",
        "pretrain mlm --data x --budget.steps 5 --schedule.warmup-share 3": "--schedule.warmup-share is 3.",
        "prepare mlm --data x --out y --text.held-out-share 1": "--text.held-out-share is 1.0.",
        "pretrain mlm --data x --smoke --budget.minutes -1": "--budget.minutes is -1.",
        "pretrain mlm --data x --smoke --budget.minutes nan": "--budget.minutes is nan.",
        "pretrain mlm --data x --budget.flops 1e400": "--budget.flops is inf.",
        "finetune depth --init x --train a --test b --epochs 1e12": "--epochs is 1000000000000.",
        "compare x --seeds 2000000000": "--seeds is 2000000000.",
        "pretrain mlm --data x --budget.minutes 1e12": "--budget.minutes is 1000000000000.",
        "pretrain mlm --data x --smoke --budget.steps 1000000000000": "--budget.steps is 1000000000000.",
        "pretrain mae --data x --budget.tokens 1000000000000000000": "--budget.tokens is 1000000000000000000.",
        "pretrain mlm --data x --budget.flops 1e40": "--budget.flops is 1e+40.",
        "compare x --budget.minutes 1e9": "--budget.minutes is 1000000000.",
        "advise --data x --budget.minutes 1e9": "--budget.minutes is 1000000000.",
        "plan cpt --init x --domain x --budget.tokens 1e20": "--budget.tokens is 1e+20.",
        "demo --minutes 1e9": "--minutes is 1000000000.",
        "pretrain mlm --data x --budget.steps 5 --seed -1": "--seed is -1.",
        "adapt x --reward y --seed -1": "--seed is -1.",
        "pretrain mlm --data x --smoke --budget.minutes 5 --budget.steps 5": "More than one budget is given: steps, minutes.",
    }
    assert refused(commands, tmp_path) == [*commands.values()]


def test_names_and_files_that_are_not_there_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    """The data is named and exists, so that it would be read."""
    (tmp_path / "x.txt").write_text("a text", encoding="utf-8")
    (tmp_path / "model").mkdir()
    tpu, here = "There is no device 'tpu' (--device).", "nowhere.csv: does not exist."
    commands = {
        "pretrain mlm --data x.txt --budget.steps 5 --device tpu": tpu,
        "pretrain mlm --data x.txt --budget.steps 5 --probe.labels nowhere.csv": here,
        "pretrain mlm --data x.txt --budget.steps 5 --probe.labels model": "model: is a folder.",
        "advise --data x.txt --budget.minutes 5 --device tpu": tpu,
        "advise --data x.txt --budget.minutes 5 --methods nonsense": "There is no method 'nonsense'.",
        "advise --data x.txt --budget.minutes 5 --methods mlm,self_distill": "'self_distill' is no method of its own: it changes how one trains.",
        "advise --data x.txt --budget.minutes 5 --preset gigantic": "No method that is tried has a preset 'gigantic'.",
        "advise --data x.txt --budget.minutes 5 --pretrain text.vocab=3": "--pretrain: text: there is no setting 'vocab'.",
        "advise --data x.txt --budget.minutes 5 --pretrain batch=0": "--batch is 0.",
        "finetune classification --init model --train x.txt --test x.txt --device tpu": tpu,
        "finetune tagging --init model --train x.txt --test x.txt --dev ./model/../x.txt": (
            "--dev and --test are the same file: the choices would be made on the records that judge them."
        ),
        "finetune flow --init model --train x.txt --test x.txt --device cuda:x": "There is no device 'cuda:x' (--device).",
        "compare model --finetune.device tpu": "There is no device 'tpu' (--finetune.device).",
        "compare model --labels nowhere.csv": here,
        "evaluate model --text x.txt --device tpu": tpu,
        "evaluate model --text nowhere.csv": here,
        "measure loss-exact model --device tpu": tpu,
        "plan cpt --init model --domain x.txt --budget.steps 9 --device tpu": tpu,
        "plan dcpt --general x.txt --domain x.txt --checkpoints model --tokens 9 --device tpu": tpu,
        "embed model --data x.txt --device tpu": tpu,
        "replay model --step 1 --device tpu": tpu,
        "claim electra --preset smoke --device tpu": tpu,
        "select --pool x.txt --reference nowhere.csv": here,
        "select --pool x.txt --reference x.txt --tokenizer nowhere.csv": here,
    }
    assert refused(commands, tmp_path) == [*commands.values()]
    assert {path.name for path in tmp_path.iterdir()} == {"x.txt", "model"}


def test_bounds_hold_at_their_ends() -> None:
    refuse_outside({"share": 0.0, "count": 1, "absent": None, "on": True, "name": "x", "shares": (0.0, 1.0)}, {"share": SHARE, "shares": SHARE})
    with pytest.raises(UsageError, match=r"--shares is 1\.5\.\nGive a share from 0 to 1\."):
        refuse_outside({"shares": (0.5, 1.5)}, {"shares": SHARE})
    with pytest.raises(UsageError, match=r"--of\.count is 0\.\nGive at least 1"):
        refuse_outside({"count": 0}, {"count": COUNT}, "of.")
