"""Messages of a verb name flags that it has: those of its errors as the source has them, and those of the runs that a plan makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import headstart
from headstart.cli import _flags
from headstart.cli.main import flags_taken, parse
from headstart.core.config import field_docs, flatten
from headstart.core.errors import BadInput, UsageError
from headstart.core.flags import FLAG, in_flags_of
from headstart.verbs import _evaluate_settings, _fit_settings, _measure_settings, _merge_settings, _plan_settings, _select_settings
from headstart.verbs._sweep import FLAGS, in_words_of_a_plan
from headstart.verbs.config import config_class

HOUSE = Path(headstart.__file__).parent
VERBS = {
    "plan": ((_plan_settings.CptSettings, _plan_settings.SweepSettings),
             ("verbs/plan.py", "verbs/plan_cpt.py", "verbs/_plan_*.py", "verbs/_sweep.py", "planning/dcpt_law/plan.py")),
    "fit": ((_fit_settings.FitSettings,), ("verbs/fit.py", "verbs/_fit_*.py", "verbs/_sweep_points.py", "planning/dcpt_law/[!p]*.py",
                                           "planning/dcpt_law/points.py")),
    "merge": ((_merge_settings.MergeSettings,), ("verbs/merge.py", "verbs/_merge_*.py", "interop/merge.py")),
    "select": ((_select_settings.SelectSettings,), ("verbs/select.py", "verbs/_select_*.py", "data/text/quality.py", "data/text/ngram.py",
                                                    "data/text/pool.py")),
    "evaluate": ((_evaluate_settings.EvaluateSettings,), ("verbs/evaluate.py", "verbs/_evaluate_*.py", "tasks/multiple_choice.py",
                                                          "tasks/lm_scores.py")),
    "measure": ((_measure_settings.SharpnessSettings, _measure_settings.ExactLossSettings),
                ("verbs/measure.py", "verbs/_measure_*.py", "engine/sharpness.py")),
}  # fmt: skip
OF_ANOTHER = re.compile(r"`?(headstart )?(pre-?train|prepare|replay|plan dcpt|fit dcpt-law|[a-z-]+ --help)\b[^.]*")
"""What a message says of another verb: up to the end of the sentence."""
SAYS = {"UsageError", "BadInput", "say", "append"}


def flags_of(kinds: tuple[type, ...]) -> set[str]:
    return {flag.name for kind in kinds for flag in _flags.flags_of(kind())}


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """(place, words) of the errors that a module raises and the sentences that it says; what is filled in is a blank."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name in SAYS:
            parts = [part for argument in call.args for part in ast.walk(argument)]
            inside = {id(value) for part in parts if isinstance(part, ast.JoinedStr) for value in part.values}
            for node in (part for part in parts if id(part) not in inside):
                if isinstance(node, ast.JoinedStr):
                    yield f"{path.name}:{node.lineno}", "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{path.name}:{node.lineno}", node.value


def documented(kinds: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """(setting, what its documentation says)."""
    for kind in kinds:
        yield from ((f"{kind.__name__}.{name}", words) for name, words in field_docs(kind).items())


@pytest.mark.parametrize("verb", VERBS)
def test_messages_name_flags_that_the_verb_has(verb: str) -> None:
    kinds, patterns = VERBS[verb]
    files = [path for pattern in patterns for path in sorted(HOUSE.glob(pattern))]
    assert len(files) >= len(patterns)
    said = [*(message for path in files for message in messages(path)), *documented(kinds)]
    assert sum("--" in words for _, words in said) > 2
    strange = [(place, flag) for place, words in said for flag in FLAG.findall(OF_ANOTHER.sub("", words)) if flag not in flags_of(kinds)]
    assert not strange


@pytest.mark.parametrize(
    ("mend", "said"),
    [
        ("Remove it. Or go on without such records: --text.on-bad-input quarantine.", "Remove it."),
        ("Give --image.mode rgb.", "Give --image.mode rgb. (--image.mode is a flag of `headstart pretrain`.)"),
        ("Name it: --text.text-field.", "Name it: --text-field."),
        ("Lower --epochs.data.", "Lower --epochs.data. (--epochs.data is a flag of `headstart pretrain`.)"),
        ("Lower --a.b or --c.d.", "Lower --a.b or --c.d. (--a.b and --c.d are flags of `headstart pretrain`.)"),
        ("`headstart prepare mae --image.size 8` has it. Or give --data.", "`headstart prepare mae --image.size 8` has it. Or give --data."),
        ("", ""),
    ],
)  # fmt: skip
def test_what_deeper_rooms_say_is_said_in_flags_of_the_verb(mend: str, said: str) -> None:
    error = BadInput("is empty.", mend, file="a.txt")
    in_flags_of(error, {"--data", "--text-field"})
    assert str(error) == "a.txt: is empty." + (f"\n{said}" if said else "")


@pytest.mark.parametrize("words", ["embed run", "finetune depth", "pretrain mlm", "plan cpt", "measure sharpness", "merge a b", "curate webmath"])
def test_the_flags_of_a_verb_are_known_to_it(words: str) -> None:
    verb, *rest = words.split()
    taken = flags_taken(parse(import_module(f"headstart.cli.{verb}"), verb, rest))
    assert "--debug" in taken
    assert ("--text.on-bad-input" in taken) == (verb == "pretrain")


def test_what_a_plan_calls_otherwise_exists_on_both_sides() -> None:
    from headstart.methods import settings

    of_pretrain = {f"--{name.replace('_', '-')}" for name in flatten(config_class(settings("causal-lm"))())}
    assert set(FLAGS) <= of_pretrain
    for kind in (_plan_settings.CptSettings, _plan_settings.SweepSettings):
        assert set(FLAGS.values()) <= flags_of((kind,))


def test_errors_of_a_run_that_a_plan_makes_are_in_the_words_of_the_plan() -> None:
    with pytest.raises(UsageError) as found, in_words_of_a_plan():
        raise UsageError("Rows of 64 tokens are longer than the 32 positions of the model.", "Lower --method.sequence-length.")
    assert str(found.value) == "Rows of 64 tokens are longer than the 32 positions of the model.\nLower --sequence-length."
    with pytest.raises(BadInput) as other, in_words_of_a_plan():
        raise BadInput("is too short.", "Give more text, or lower --epochs.tokens.", file="new.jsonl")
    assert str(other.value) == (
        "new.jsonl: is too short.\nGive more text, or lower --epochs.tokens. (--epochs.tokens is a flag of `headstart pretrain`.)"
    )
    assert other.value.file == "new.jsonl"


def test_errors_in_python_end_with_the_keywords_that_flags_are(tmp_path: Path) -> None:
    """Flags of a command that a message gives are none of the call."""
    with pytest.raises(UsageError, match="--random-starts is -1") as refused:
        headstart.probe(tmp_path, tmp_path, tmp_path, random_starts=-1)
    assert refused.value.__notes__ == ["In Python: --random-starts is random_starts=..."]
    with pytest.raises(UsageError, match="No budget is given") as refused:
        headstart.pretrain("mlm", tmp_path)
    assert "--budget.steps is **{'budget.steps': ...}, --budget.tokens is" in refused.value.__notes__[0]
    with pytest.raises(UsageError, match="`headstart list`") as refused:
        headstart.pretrain("nothing", tmp_path)
    assert not hasattr(refused.value, "__notes__")
