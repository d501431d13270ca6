"""The command line as a whole: exit codes, the frozen flags, one set of names and defaults for Python, flags and YAML, and how errors look."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as headstart_package
from headstart.cli import pretrain as pretrain_cli
from headstart.cli.main import VERBS, main
from headstart.core.config import field_docs, flatten, plain, read_yaml, replace_nested
from headstart.core.errors import UsageError
from headstart.verbs.config import COMMON_FLAGS, PretrainConfig, preset_config
from tests.corpus import write_jsonl
from tests.running import METHODS, TINY, environment, files, flags, headstart, run_info

QUICK = flags({**TINY, "budget.steps": 2})


Here = Callable[[list[str], Path], tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """(exit code, standard output, standard error) of a command in this process, which has imported everything already."""

    def run(arguments: list[str], folder: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as stop:
            code = int(stop.code or 0)
        signal.signal(signal.SIGTERM, before)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


# exit codes and errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dance"], "there is no verb 'dance'"),
        (["pretrain"], "usage"),
        (["prepare"], "usage"),
        (["finetune"], "usage"),
        (["pretrain", "elektra", "--data", "x"], "elektra"),
        (["pretrain", "mlm", "--preset", "gigantic", "--data", "x"], "mlm has no preset 'gigantic'"),
        (["pretrain", "mlm", "--budget.steps", "3"], "No data is given"),
        (["pretrain", "mlm", "--data", "x"], "No budget is given"),
        (["pretrain", "mlm", "--no-such-flag", "1"], "no-such-flag"),
        (["pretrain", "mlm", "--seed", "three"], "seed"),
        (["finetune", "juggling", "--init", "x"], "There is no task 'juggling'"),
        (["finetune", "classification", "--init", "x"], "--train is missing"),
        (["prepare", "mlm", "--data", "x"], "--data and --out are needed"),
        (["profile", "mlm", "--data", "x", "--dry-run"], "--dry-run is for a run, and profile makes none"),
        (["report", "--port", "1"], "--port is for --serve"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(arguments: list[str], says: str, tmp_path: Path, here: Here) -> None:
    code, out, err = here(arguments, tmp_path)
    assert code == 2, err
    assert says in err + out
    assert "Traceback" not in err
    assert files(tmp_path) == set(), "nothing is written before the command is understood"


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "mlm", "--data", "missing", "--budget.steps", "2"],
        ["prepare", "mlm", "--data", "missing", "--out", "store"],
        ["peek", "missing"],
        ["sample", "missing"],
        ["finetune", "classification", "--init", "missing", "--train", "a.jsonl", "--test", "b.jsonl"],
        ["pretrain", "mlm", "--config", "missing.yaml"],
    ],
)
def test_bad_input_exits_3_in_two_lines(arguments: list[str], tmp_path: Path, here: Here) -> None:
    code, _, err = here(arguments, tmp_path)
    assert code == 3, err
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith(f"headstart {arguments[0]}: missing")
    assert lines[1]


def test_debug_shows_the_traceback(tmp_path: Path, here: Here) -> None:
    code, _, err = here(["peek", "missing", "--debug"], tmp_path)
    assert code == 3
    assert "Traceback" in err
    assert err.splitlines()[-2].startswith("headstart peek: missing")


def test_python_m_headstart_is_the_same_program(tmp_path: Path) -> None:
    done = headstart("peek", "missing", cwd=tmp_path)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith("headstart peek: missing")


def test_a_bug_of_ours_exits_1_and_asks_for_a_report(tmp_path: Path) -> None:
    code = (
        "import sys; from headstart.cli import main, peek\n"
        "def run(args): raise ZeroDivisionError('division by zero')\n"
        "peek.run = run\n"
        "sys.exit(main.main(['peek', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "headstart peek: ZeroDivisionError: division by zero",
        "This is a bug; repeat with --debug and report what it prints.",
    ]


def test_a_full_disk_is_the_machines_fault_and_exits_4(tmp_path: Path) -> None:
    """/dev/full refuses every byte."""
    code = (
        "import sys; from headstart.cli import main, peek\n"
        "def run(args):\n"
        "    with open('/dev/full', 'w') as file: file.write('x')\n"
        "peek.run = run\n"
        "sys.exit(main.main(['peek', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("headstart peek: No space left on device")
    assert len(done.stderr.splitlines()) == 2


def test_a_missing_package_exits_4_and_names_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['tyro'] = None; from headstart.cli import main; sys.exit(main.main(['pretrain', 'mlm', '--data', 'x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 4
    assert "the package 'tyro' is not installed" in done.stderr
    assert "headstart doctor" in done.stderr


def test_divergence_exits_5(store: Path, tmp_path: Path, here: Here) -> None:
    settings = {**TINY, "budget.steps": 20, "optimizer.learning_rate": 1e30, "trainer.checkpoint_every": 20}
    code, _, err = here(["pretrain", "causal-lm", "--data", str(store), "--out", "run", *flags(settings)], tmp_path)
    assert code == 5, err
    assert len(err.splitlines()) == 2
    assert "--optimizer.learning-rate" in err


def test_changed_settings_exit_2_with_the_init_line(trained: Path, store: Path, tmp_path: Path, here: Here) -> None:
    code, _, err = here(["pretrain", "causal-lm", "--data", str(store), "--out", str(trained), *flags({**TINY, "budget.steps": 25})], tmp_path)
    assert code == 2
    assert "budget.steps: 24 -> 25" in err
    assert f"--init {trained} --out" in err
    assert run_info(trained)["status"] == "done"


@pytest.mark.slow
def test_json_leaves_nothing_but_json_on_standard_output(store: Path, tmp_path: Path) -> None:
    done = headstart("pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == run_info(tmp_path / "run")
    assert "Plan: causal-lm" in done.stderr


# every verb


def test_the_overview_names_every_verb_an_example_and_the_exit_codes() -> None:
    done = headstart("--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == list(VERBS)
    assert "example: headstart pretrain" in done.stdout
    assert "5 diverged, 130 interrupted" in done.stdout
    assert headstart().returncode == 2


def test_nobody_reading_the_overview_to_its_end_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m headstart | true", shell=True, capture_output=True, text=True, env=environment(), check=False
    )
    assert done.stderr == ""



@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_that_it_understands(verb: str) -> None:
    done = headstart(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"example: headstart {verb}" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", [["pretrain", "mlm"], ["prepare", "mlm"], ["finetune", "classification"]])
def test_the_help_of_a_command_with_many_flags_explains_each(
    command: list[str], tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # one column
    code, out, err = here([*command, "--help"], tmp_path)
    assert code == 0, err
    words = " ".join(out.replace("│", " ").split())
    assert f"example: headstart {command[0]}" in words
    if command[0] == "pretrain":
        for name in flatten(preset_config_of("mlm")):
            assert "--" + name.replace("_", "-") in words, name
        assert "BERT: 0.15" in words, "the docstring of a method's field"
        assert "Global batch in rows" in words, "the docstring of a common field"


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["--version"], ["show", "--help"], ["pretrain", "--help"], ["finetune", "--help"]])
def test_what_needs_no_model_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from headstart.cli.main import main\n"
        f"try: code = main({arguments!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'tyro'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


def test_import_headstart_imports_nothing_heavy_and_offers_the_verbs() -> None:
    code = "import sys, headstart; heavy = {'torch', 'numpy'} & set(sys.modules); sys.exit(str(heavy) if heavy else not callable(headstart.pretrain))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


# one set of names and defaults


def preset_config_of(slug: str, preset: str = "tiny") -> Any:
    from headstart import methods

    return preset_config(methods.load(slug), preset)[1]


def test_the_common_flags_are_the_frozen_list() -> None:
    """A new setting goes into the group that it belongs to, not to the top."""
    groups = {"optimizer", "schedule", "trainer", "probe", "mixture", "epochs", "method"}
    top = [field.name for field in dataclasses.fields(PretrainConfig) if field.name not in groups]
    names = [name if name != "budget" else [f"budget.{unit}" for unit in ("steps", "tokens", "flops", "minutes")] for name in top]
    assert [name for entry in names for name in (entry if isinstance(entry, list) else [entry])] == list(COMMON_FLAGS)
    assert COMMON_FLAGS == (
        "data", "out", "preset", "seed", "budget.steps", "budget.tokens", "budget.flops", "budget.minutes", "init", "mix", "batch",
        "device", "precision", "smoke", "dry_run", "resume", "json", "debug",
    )  # fmt: skip
    assert [field.name for field in dataclasses.fields(PretrainConfig().budget)] == ["steps", "tokens", "flops", "minutes"]


@pytest.mark.parametrize("slug", METHODS)
def test_python_flags_and_yaml_have_the_same_names_and_defaults(slug: str, tmp_path: Path) -> None:
    """--write-config without a flag is the preset of Python; read back it is the same again; every leaf is a flag."""
    path = tmp_path / "config.yaml"
    assert pretrain_cli.run(pretrain_cli.parse([slug, "--write-config", str(path)])) == 0
    python = preset_config_of(slug)
    values = read_yaml(path)
    assert replace_nested(python, values) == python
    assert list(flatten_plain(values)) == list(flatten(python))
    assert flatten_plain(values) == {name: plain(value) for name, value in flatten(python).items()}
    assert pretrain_cli.parse([slug, "--config", str(path)]).config == python
    assert pretrain_cli.parse([slug]).config == python


def flatten_plain(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten_plain(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_every_field_is_explained_in_the_written_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    pretrain_cli.run(pretrain_cli.parse(["electra", "--write-config", str(path)]))
    text = path.read_text()
    config = preset_config_of("electra")
    for group in (config, *(getattr(config, field.name) for field in dataclasses.fields(config))):
        if dataclasses.is_dataclass(group):
            docs = field_docs(type(group))
            for field in dataclasses.fields(group):
                if not dataclasses.is_dataclass(getattr(group, field.name)):
                    assert docs.get(field.name), f"{type(group).__name__}.{field.name} has no docstring"
                    assert docs[field.name].splitlines()[0] in text


def test_flags_win_over_the_file_over_the_preset_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 5\noptimizer: {learning_rate: 1e-3, weight_decay: 0.3}\nmethod: {dropout: 0.2}\ndata: [a.txt]\n")
    arguments = ["mlm", "--config", str(path), "--optimizer.weight-decay", "0.4", "--data", "b.txt", "c.txt"]
    parsed = pretrain_cli.parse(arguments)
    config, origin = parsed.config, parsed.origin
    assert (config.seed, origin["seed"]) == (5, "config")
    assert (config.optimizer.learning_rate, origin["optimizer.learning_rate"]) == (1e-3, "config")
    assert (config.optimizer.weight_decay, origin["optimizer.weight_decay"]) == (0.4, "flag")
    assert (config.method.dropout, origin["method.dropout"]) == (0.2, "config")
    assert (config.method.causal_start, origin["method.causal_start"]) == (300, "preset")
    assert (config.optimizer.clip_norm, origin["optimizer.clip_norm"]) == (1.0, "default")
    assert (config.data, origin["data"]) == (("b.txt", "c.txt"), "flag")


def test_the_preset_of_a_file_is_used_and_a_flag_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("preset: base\n")
    assert pretrain_cli.parse(["mlm", "--config", str(path)]).config == preset_config_of("mlm", "base")
    assert pretrain_cli.parse(["mlm", "--config", str(path), "--preset", "small"]).config == preset_config_of("mlm", "small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {learning_rate: 1}\n", "there is no setting 'optimiser'"),
        ("optimizer: {learning_rte: 1}\n", "there is no setting 'learning_rte'"),
        ("optimizer: 3\n", "is a group of settings"),
        ("seed: three\n", "seed must be int, not 'three'"),
        ("precision: fp64\n", "precision must be auto or fp32 or bf16 or fp8"),
        ("preset: 7\n", "no preset '7'"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        pretrain_cli.parse(["mlm", "--config", str(path)])


def test_a_config_that_cannot_be_written_is_wrong_usage(tmp_path: Path, here: Here) -> None:
    code, _, err = here(["pretrain", "mlm", "--write-config", "no/folder.yaml"], tmp_path)
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.slow
def test_a_run_from_the_written_config_is_the_run_from_the_flags(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert headstart("pretrain", "mlm", "--data", store, "--write-config", path, *QUICK).returncode == 0
    by_flags = headstart("pretrain", "mlm", "--data", store, "--out", tmp_path / "a", *QUICK)
    by_file = headstart("pretrain", "mlm", "--config", path, "--out", tmp_path / "b")
    assert (by_flags.returncode, by_file.returncode) == (0, 0), by_file.stderr
    a, b = run_info(tmp_path / "a"), run_info(tmp_path / "b")
    assert a["config"] | {"out": None} == b["config"] | {"out": None}
    assert (tmp_path / "a/export/model.safetensors").read_bytes() == (tmp_path / "b/export/model.safetensors").read_bytes()


# prepare and peek


def test_prepare_makes_a_store_that_peek_shows(corpus: Path, tmp_path: Path, here: Here) -> None:
    code, out, err = here(["prepare", "electra", "--data", str(corpus), "--out", "store", "--text.vocab-size", "300"], tmp_path)
    assert code == 0, err
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert f"{manifest['counts']['documents']} documents" in out
    assert f"{manifest['unigram_entropy']:.3f} nats" in out
    assert "train rows of preset tiny" in out
    code, out, err = here(["peek", "store", "--count", "2", "--json"], tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert len(found["documents"]) == 2
    assert {row["rows"].split("-")[0] for row in found["rows"]} == {"train", "held_out"}
    assert any(row["second"] for row in found["rows"]), "ELECTRA's rows have two segments"
    page = here(["peek", "store", "--count", "2"], tmp_path)[1]
    for document in found["documents"]:
        assert f"document {document['index']} of {document['file']}" in page
        assert all(sentence in page for sentence in document["sentences"])
    assert all(row["text"] in page for row in found["rows"])
    other = json.loads(here(["peek", "store", "--count", "2", "--seed", "1", "--json"], tmp_path)[1])
    assert other["documents"] != found["documents"]


def test_prepare_json_prints_the_manifest_and_a_second_time_opens_the_store(corpus: Path, tmp_path: Path, here: Here) -> None:
    command = ["prepare", "causal-lm", "--data", str(corpus), "--out", "store", "--json", "--text.vocab-size"]
    code, out, err = here([*command, "300"], tmp_path)
    assert code == 0, err
    manifest = tmp_path / "store" / "manifest.json"
    assert json.loads(out) == json.loads(manifest.read_text())
    made = manifest.stat().st_mtime_ns
    assert here([*command, "300"], tmp_path)[0] == 0
    assert manifest.stat().st_mtime_ns == made
    code, _, err = here([*command, "200"], tmp_path)
    assert code == 2
    assert "vocab_size 300 -> 200" in err


def test_what_prepare_made_is_what_pretrain_takes(corpus: Path, tmp_path: Path) -> None:
    """In Python: the same verbs. No second store appears beside the run, and no second set of rows."""
    store = headstart_package.prepare("mlm", corpus, tmp_path / "store", say=lambda line: None, **{"text.vocab_size": 300})
    rows = sorted((store.folder / "rows").iterdir())
    settings = {name: value for name, value in TINY.items() if name != "method.sequence_length" and not name.startswith("text.")}
    settings |= {"budget.steps": 4, "dry_run": True}
    run = headstart_package.pretrain("mlm", store.folder, out=tmp_path / "run", say=lambda line: None, **settings)
    assert run.info["data"][0]["store"] == str(store.folder)
    assert not (tmp_path / "stores").exists()
    assert sorted((store.folder / "rows").iterdir()) == rows


def test_peek_of_a_run_shows_its_store(trained: Path, store: Path) -> None:
    assert headstart_package.peek(trained, count=1) == headstart_package.peek(store, count=1)


def test_peek_of_nothing_is_wrong_usage(store: Path, tmp_path: Path, here: Here) -> None:
    code, _, err = here(["peek", str(store), "--count", "0"], tmp_path)
    assert code == 2
    assert "Give at least 1" in err


@pytest.mark.parametrize("arguments", [["list", "--data", ""], ["pretrain", "mlm", "--data", ""], ["embed", ""]])
def test_an_empty_argument_is_not_the_folder_one_stands_in(arguments: list[str], tmp_path: Path, here: Here) -> None:
    code, _, errors = here(arguments, tmp_path)
    assert code == 2
    assert "An argument is empty" in errors
    assert not any(tmp_path.iterdir())


def test_prepare_names_the_bad_record(tmp_path: Path, here: Here) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "fine"}, {"txet": "no"}])
    code, _, err = here(["prepare", "mlm", "--data", "texts.jsonl", "--out", "store"], tmp_path)
    assert code == 3
    assert "texts.jsonl, record 2" in err
    assert len(err.splitlines()) == 2
