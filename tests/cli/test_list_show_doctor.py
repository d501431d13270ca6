"""`headstart list`, `show` and `doctor` as real processes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import catalog
from headstart.claims._committed import read_results, verdict_words
from headstart.cli import doctor, pretrain, show
from headstart.cli.list import closing_lines
from headstart.core.errors import BadInput

SOURCE = Path(catalog.__file__).parents[2]


def headstart(*arguments: str, first_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line; `first_path` is searched for packages before all others."""
    path = os.pathsep.join(str(entry) for entry in (first_path, SOURCE) if entry is not None)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "headstart", *arguments], capture_output=True, text=True, env=environment, timeout=120)


def result_file(folder: Path, slug: str, preset: str = "cpu") -> Path:
    """A claim result with the fields of the format, as `headstart claim` writes it."""
    result = {
        "slug": slug,
        "preset": preset,
        "metric": "accuracy",
        "data": {"name": "movies"},
        "date": "2026-01-02",
        "hardware": "2 cores",
        "percent": True,
        "verdict": "reproduced",
        "arms": [{"arm": arm, "mean": value, "runs": [{"seed": 0, "metric": value}]} for arm, value in (("electra", 0.8213), ("mlm", 0.8))],
        "comparisons": [
            {"a": "electra", "b": "mlm", "seeds": 3, "difference": 0.0213, "ci95": [0.004, 0.0386], "verdict": "reproduced", "why": ""},
        ],
    }
    path = folder / f"{slug}-{preset}.json"
    path.write_text(json.dumps(result))
    return path


# list


EVERY_SLUG = [*catalog.BASELINES, *catalog.CARDS]
RUNNING = [slug for slug in EVERY_SLUG if catalog.implemented(slug)]
CARD_ONLY = [slug for slug in EVERY_SLUG if not catalog.implemented(slug)]


def test_list_prints_one_tab_separated_line_per_running_method_when_piped() -> None:
    done = headstart("list")
    assert done.returncode == 0, done.stderr
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["method", "runs", "family", "needs", "measured claim"]
    assert [line[0] for line in lines] == RUNNING
    assert {line[1] for line in lines} == {"yes"}


def test_list_all_has_those_with_a_card_only_after_those_that_run() -> None:
    _, *lines = [line.split("\t") for line in headstart("list", "--all").stdout.splitlines()]
    assert [line[0] for line in lines] == [*RUNNING, *CARD_ONLY]
    assert {line[1] for line in lines[len(RUNNING) :]} == {"card only"}


def test_what_is_not_shown_is_named_with_what_a_card_only_means() -> None:
    mlm, mcl = catalog.card("mlm"), catalog.card("mcl")
    assert closing_lines([mlm], [mcl])[0] == "1 more have a card only (described, not yet written): mcl. `--all` shows them."
    assert closing_lines([mlm, mcl], [mcl])[0].startswith("card only: ")
    assert closing_lines([mcl], [mcl])[0] == "No method that fits runs yet."
    assert closing_lines([mlm], [])[0].startswith("`headstart show")


def test_list_json_holds_every_card_whole() -> None:
    methods = json.loads(headstart("list", "--json").stdout)["methods"]
    assert [method["slug"] for method in methods if not method["baseline"]] == list(catalog.CARDS)
    electra = next(method for method in methods if method["slug"] == "electra")
    assert electra["arxiv"] == "2003.10555"
    assert electra["implemented"] == catalog.implemented("electra")


def test_list_data_says_what_lies_there_and_lists_what_fits(tmp_path: Path) -> None:
    (tmp_path / "calls.wav").write_bytes(b"RIFF")
    done = headstart("list", "--data", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1 file of speech recordings" in done.stdout
    assert [line.split("\t")[0] for line in done.stdout.splitlines() if "\t" in line] == ["method", "hykist"], "shown although it has a card only"


def test_list_data_with_nothing_known_names_the_kinds_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("a letter")
    done = headstart("list", "--data", str(tmp_path))
    assert done.returncode == 0
    assert "nothing to pre-train on was recognised" in done.stdout
    assert "passed over: 1 .xyz" in done.stdout
    assert "speech recordings" in done.stdout or "audio" in done.stdout


def test_list_data_of_a_missing_folder_is_bad_input(tmp_path: Path) -> None:
    done = headstart("list", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 3
    assert "no such file or folder" in done.stderr


def test_list_data_of_a_curation_that_goes_on_says_so(tmp_path: Path) -> None:
    (tmp_path / "curate.json").write_text(json.dumps({"format": 1, "recipe": "text", "sources": [["a.jsonl", 3]]}))
    done = headstart("list", "--data", str(tmp_path))
    assert done.returncode == 3
    assert "is a curation that is not finished" in done.stderr


def test_list_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys; from headstart.cli import main;"
        "codes = [main.main(['list']), main.main(['--help'])];"
        "heavy = {'torch', 'transformers', 'tyro', 'numpy', 'pyarrow', 'rich'} & set(sys.modules);"
        "sys.exit(f'{codes} {heavy}' if heavy or any(codes) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SOURCE)}, timeout=240)
    assert done.returncode == 0, done.stderr


def test_on_a_terminal_list_is_a_table_by_family() -> None:
    parent, child = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "140", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen([sys.executable, "-m", "headstart", "list", "--all"], stdout=child, env=environment)
    os.close(child)
    text = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # Linux reports the closed terminal as an error
            break
        if not chunk:
            break
        text += chunk
    os.close(parent)
    assert process.wait(timeout=240) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    families = [line.strip() for line in lines if re.fullmatch(r" ?[a-z0-9-]+ *", line)]  # a name in the first column and nothing beside it
    waiting = {card.family for card in catalog.cards() if not catalog.implemented(card.slug)}
    assert families[-len(waiting) :] == [family for family in catalog.FAMILIES if family in waiting]
    assert families[0] == "baseline"
    assert "choose it when" in lines[0] + lines[1]
    assert all(len(line) <= 140 for line in lines)


# show


def test_show_prints_the_card_with_an_example_of_the_data() -> None:
    done = headstart("show", "webmath")
    assert done.returncode == 0, done.stderr
    card = catalog.card("webmath")
    words = " ".join(done.stdout.split())
    for text in (card.title, card.arxiv, card.needs, card.gives, card.expect, card.choose_when, card.avoid_when, card.official_code):
        assert text in words
    assert card.data_example.splitlines()[0] in done.stdout


def test_show_json_says_where_the_implementation_is() -> None:
    done = headstart("show", "causal-lm", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["implementation"] == "headstart.methods.causal_lm"
    assert "tiny" in shown["presets"]
    assert shown["presets"]["tiny"]["batch"] > 0
    assert not any(isinstance(value, dict) and value for value in shown["presets"]["tiny"].values()), "names are dotted, as on the command line"


def test_show_of_an_unknown_method_is_wrong_usage_and_names_the_closest() -> None:
    done = headstart("show", "elektra")
    assert done.returncode == 2
    assert "Did you mean electra?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_claim_result_is_shown_with_its_interval_and_verdict(tmp_path: Path) -> None:
    result_file(tmp_path, "electra")
    results = read_results("electra", tmp_path)
    page = "\n".join(show.in_words(catalog.card("electra"), None, {}, results))
    assert "electra minus mlm: +2.1 points (95 % interval +0.4 to +3.9, 3 seeds): reproduced" in page
    assert "electra 82.1 %, mlm 80.0 %" in page
    assert "preset cpu, accuracy on movies, 2026-01-02, 2 cores" in page
    assert "no result yet" not in page


def test_a_list_tells_the_verdict_of_a_claim_in_one_line(tmp_path: Path) -> None:
    result_file(tmp_path, "electra")
    told = [verdict_words(result) for result in read_results("electra", tmp_path)]
    assert told == ["cpu: reproduced, electra - mlm +2.1 points (95 % interval +0.4 to +3.9, 3 seeds)"]


def test_without_a_claim_result_the_page_says_so(tmp_path: Path) -> None:
    page = "\n".join(show.in_words(catalog.card("electra"), None, {}, read_results("electra", tmp_path)))
    assert "no result yet" in page


def test_results_of_other_methods_are_not_mixed_in(tmp_path: Path) -> None:
    result_file(tmp_path, "bprop")
    result_file(tmp_path, "prop", "gpu")
    result_file(tmp_path, "prop-more", "gpu")
    assert [result["preset"] for result in read_results("prop", tmp_path)] == ["gpu"]


def test_a_damaged_claim_result_is_named(tmp_path: Path) -> None:
    result_file(tmp_path, "electra").write_text('{"slug": "elec')
    with pytest.raises(BadInput, match=r"electra-cpu\.json: is not valid JSON"):
        read_results("electra", tmp_path)


def test_presets_show_only_the_fields_in_which_they_differ() -> None:
    presets = {"tiny": {"method.hidden_size": 128, "method.dropout": 0.1}, "base": {"method.hidden_size": 768, "method.dropout": 0.1}}
    page = "\n".join(show.in_words(catalog.card("electra"), None, presets, []))
    assert "--method.hidden-size" in page, "as the command line takes it"
    assert "768" in page
    assert "dropout" not in page


def test_the_presets_that_are_shown_can_be_typed() -> None:
    """Every flag that show names, with the value it names, is one that pretrain takes; and says what the preset says."""
    for slug in RUNNING:
        presets = show.read_presets(slug)
        for preset, settings in presets.items():
            page = [line.split(maxsplit=1) for line in show._presets({preset: settings}, show.switches(slug)) if line.startswith("  --")]
            words = [word for name, value in page if value not in ("-", "on", "off") for word in (name, *value.split())]
            for name, value in page:
                head, _, last = name.rpartition(".")
                words += {"on": [name], "off": [f"{head}.no-{last}" if head else f"--no-{name[2:]}"]}.get(value, [])
            config = pretrain.parse([slug, "--preset", preset]).config
            assert pretrain.parse([slug, "--preset", preset, *words]).config == config
            assert len(page) > 5


def test_nested_settings_become_dotted_names() -> None:
    assert show.flatten({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}


# doctor


@pytest.mark.slow
def test_doctor_measures_this_machine_and_finds_it_ready() -> None:
    done = headstart("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["verdict"]
    assert report["ready"]
    assert report["verdict"].startswith("Ready")
    assert {package["package"] for package in report["required"]} >= {"torch", "transformers", "tokenizers", "numpy"}
    assert report["speed"]["fp32_flops"] > 0
    assert report["speed"]["bf16_flops"] > 0
    assert "headstart[" not in json.dumps(report["required"])


@pytest.mark.slow
def test_doctor_exits_4_and_names_the_pip_line_when_something_required_is_missing(tmp_path: Path) -> None:
    metadata = tmp_path / "headstart-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: headstart\nVersion: 9.9\nRequires-Dist: surely-not-there>=1.2\nRequires-Dist: numpy>=999\n"
        "Provides-Extra: party\nRequires-Dist: no-such-balloon; extra == 'party'\n"
    )
    done = headstart("doctor", first_path=tmp_path)
    assert done.returncode == 4
    assert "pip install 'surely-not-there>=1.2' 'numpy>=999'" in done.stdout
    assert "surely-not-thereMISSING" in done.stdout.replace(" ", "")
    assert "TOO OLD (needs 999)" in done.stdout
    assert "party: missing no-such-balloon: pip install 'headstart[party]'" in done.stdout


@pytest.mark.parametrize(
    ("installed", "minimum", "met"),
    [
        ("2.13.0+cpu", "2.11", True),
        ("2.9.1", "2.11", False),
        ("5.17.0.dev0", "5.17", True),
        ("3", "3.0.1", False),
        ("1.0", "", True),
        (None, "", False),
    ],
)
def test_versions_are_compared_by_number(installed: str | None, minimum: str, met: bool) -> None:
    assert doctor.Requirement("torch", minimum, "", installed).met == met


@pytest.mark.parametrize(
    ("line", "package", "minimum"),
    [("torch>=2.11", "torch", "2.11"), ("numpy", "numpy", ""), ("fsspec[http] >= 2024.1; extra == 'x'", "fsspec", "2024.1")],
)
def test_requirement_lines_are_read(line: str, package: str, minimum: str) -> None:
    requirement = doctor.parse_requirement(line, "")
    assert (requirement.package, requirement.minimum) == (package, minimum)


@pytest.mark.parametrize("verb", ["list", "show", "doctor"])
def test_every_help_has_an_example(verb: str) -> None:
    done = headstart(verb, "--help")
    assert done.returncode == 0
    assert f"headstart {verb}" in done.stdout.split("example", 1)[1]
