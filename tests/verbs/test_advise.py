"""`headstart advise` on languages whose right advice is known: the verdict, the command it ends with, kills, and data that it refuses."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headstart import catalog
from headstart.catalog.folder import FolderContents
from headstart.core.config import plain
from headstart.core.errors import BadInput, UsageError
from headstart.verbs._advise_candidates import Candidate, fitting_methods
from headstart.verbs._advise_measure import read_labels
from headstart.verbs._advise_points import Book, Measuring
from headstart.verbs._advise_settings import AdviseBudget, AdviseSettings
from headstart.verbs._advise_trial import Rung
from headstart.verbs._advise_verdict import CANDIDATE
from headstart.verbs.advise import Advice, _Advising, advise, new_arm, read_advice
from tests.advice import run_settings, write_language
from tests.corpus import write_jsonl
from tests.data.image.pictures import write_folder
from tests.running import files, headstart, records, run_info, start, untimed, wait_until

MINUTES = 2.0  # of which the trial takes 24 s


def ask(corpus: Path, labels: Path | None, out: Path, **settings: Any) -> tuple[Advice, list[str]]:
    said: list[str] = []
    chosen = {"methods": ("causal-lm",), "device": "cpu", "pretrain": run_settings(), "budget.minutes": MINUTES} | settings
    return advise(corpus, labels=labels, out=out, say=said.append, **chosen), said


def flags(corpus: Path, labels: Path, out: Path, **more: str) -> list[str | Path]:
    """The same question on the command line."""
    settings = ["--pretrain", *run_settings(), "--methods", "causal-lm", "--device", "cpu"]
    return ["advise", "--data", corpus, "--labels", labels, "--out", out, "--budget.minutes", more.get("minutes", str(MINUTES)), *settings]


def arm(advice: Advice, name: str) -> dict[str, Any]:
    return next(entry for entry in advice.info["arms"] if entry["arm"] == name)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Words of a topic keep company: there is something to learn from unlabelled text."""
    return write_language(tmp_path_factory.mktemp("company"), company=True, labels=120)


@pytest.fixture(scope="module")
def advised(language: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Advice, list[str]]:
    return ask(*language, tmp_path_factory.mktemp("advice") / "out")


@pytest.mark.slow
def test_where_unlabelled_text_tells_what_labels_mean_pretraining_helps(advised: tuple[Advice, list[str]]) -> None:
    advice, said = advised
    verdict = advice.info["verdict"]
    assert verdict["word"] in ("helps", "should help"), said  # how far the trial comes depends on the machine
    assert verdict["winner"] == "causal-lm"
    assert verdict["gain_now"]["value"] > 0
    assert max(verdict["gain_now"]["ci95"][0], arm(advice, "causal-lm")["gain"]["ci95"][0]) > 0, "now, or with the whole budget"
    assert advice.info["ranking"][0] == "causal-lm"
    low, high = arm(advice, "causal-lm")["full"]["ci95"]
    assert low <= arm(advice, "causal-lm")["full"]["value"] <= high <= 1.0
    assert advice.info["leaks"]["share"] == 0.0
    order = ("Question: ", "Look", "This budget can judge causal-lm: ", "Trial:", "Candidates", "Answer: causal-lm ", "Ranking", "Leaks:", "Spent:")
    order += ("Do it (about ", "Then, for the final verdict")
    places = [next((i for i, line in enumerate(said) if line.startswith(word)), -1) for word in order]
    assert -1 not in places, said
    assert places == sorted(places)


@pytest.mark.slow
def test_the_answer_keeps_a_fifth_of_the_minutes_and_the_run_has_the_rest(advised: tuple[Advice, list[str]]) -> None:
    """Training and measuring: once a budget of ten minutes trained for two and measured for nineteen."""
    advice, said = advised
    budget, planned, spent = advice.info["budget"], advice.info["plan"], advice.info["spent"]
    assert budget["trial_seconds"] == pytest.approx(24)
    assert planned["training_s"] + planned["measuring_s"] + spent["speed_s"] <= 24.001
    assert advice.info["candidates"][0]["minutes"] <= 0.8 * MINUTES
    plain = next(i for i, line in enumerate(said) if line.startswith("This budget can judge causal-lm: the answer in about 0:2"))
    assert ": 2 minutes in all, beside the " in said[plain]
    assert plain < next(i for i, line in enumerate(said) if "accuracy" in line and "splits" in line), "said before it is spent"
    assert said[0].startswith("Question: ")
    assert "2 minutes in all: a fifth (0:24) for the answer" in said[0]
    measured = [len(point["values"]) for entry in advice.info["arms"] for point in entry["points"]]
    assert set(measured) == {planned["splits"]}


@pytest.mark.slow
def test_what_the_head_start_is_worth_in_labels_is_measured_where_there_is_time(
    advised: tuple[Advice, list[str]], language: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(advised[0].folder, tmp_path / "out")
    info = read_advice(folder)
    book = Book(folder, info)
    labels = read_labels(language[1], "text", "label", 0, 10)
    measuring = Measuring(book, AdviseSettings(device="cpu"), labels, lambda line: None)
    best, start = arm(Advice(folder, info), "causal-lm"), arm(Advice(folder, info), "random start (causal-lm network)")
    info["plan"].pop("curve_measured", None)
    info["labels_worth"], info["verdict"]["notes"] = None, []
    before = book.left_s()
    info["budget"]["trial_seconds"] -= before / 1.1
    measuring.find_labels_worth(best, start, labels)
    assert info["labels_worth"] is None
    assert any("this budget has no time for it" in note for note in info["verdict"]["notes"])
    info["plan"].pop("curve_measured")
    info["budget"]["trial_seconds"] += 1000
    measuring.find_labels_worth(best, start, labels)
    worth = info["labels_worth"]
    assert (worth["labels"], worth["largest"]) == (15, 60)
    assert worth["random_labels"] is None or worth["random_labels"] > worth["labels"], "the head start is worth labels"
    curves = info["label_curves"]
    assert {name: set(at) for name, at in curves.items()} == {"pretrained": {"15", "60"}, "random start": {"15", "30", "60"}}
    assert curves["random start"]["60"] == start["points"][0]["values"][:5], "the trial measured it"
    spent = info["spent"]["measuring_s"]
    measuring.find_labels_worth(best, start, labels)
    assert info["spent"]["measuring_s"] < spent + 2, "nothing is measured twice"


def test_an_arm_that_a_slow_machine_has_no_time_for_is_left_out_rather_than_the_promise_broken(language: tuple[Path, Path], tmp_path: Path) -> None:
    settings = AdviseSettings(data=(str(language[0]),), budget=AdviseBudget(100 / 12), out=tmp_path / "out", methods=("mlm",), device="cpu")
    advising = _Advising(settings, tmp_path / "out", lambda line: None, None)
    costs: dict[str, Any] = {"flops_per_step": {"train": 100}, "seconds_per_step": {"train": 0.1}, "setup_s": 1.0, "spans": [("train", 1000)]}
    two = {name: Candidate(name, name, "tiny", None, tmp_path, {}, **costs) for name in ("first", "second")}
    arms = [new_arm(name, CANDIDATE, entry) for name, entry in two.items()]
    arms[0]["points"].append({"rung": 0, "step": 100, "values": [0.5] * 5})
    advising.book.info = {
        "budget": {"trial_seconds": 100.0}, "spent": {"speed_s": 5.0, "training_s": 11.0, "measuring_s": 20.0}, "left_out": [], "arms": arms,
        "plan": {"splits": 5, "rungs": 1, "rates": 1, "documents": 0, "threads": 1, "a_score": 2.0, "a_point": 0.0},
    }  # fmt: skip
    rung = Rung(1e4, {"first": 100, "second": 100}, ["first", "second"], 0, 22.0)
    assert advising.pace(two) == pytest.approx(1.0)
    assert advising.affordable(arms[1], 0, rung, two)
    advising.info["spent"]["training_s"] = 55.0
    assert advising.pace(two) == pytest.approx(5.0)
    assert not advising.affordable(arms[1], 0, rung, two), "at this pace it would take 55 s more"
    assert advising.affordable(arms[0], 0, rung, two), "what was begun is ended"
    for _ in range(2):  # and after a kill again
        advising.skip(arms[1], 0)
    assert [entry["method"] for entry in advising.info["left_out"]] == ["second"]
    advising.skip(arms[0], 1)
    assert arms[0]["dropped_after"] == 0


def test_a_warning_of_the_log_is_said_once_with_the_name_of_its_method(language: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    settings = AdviseSettings(data=(str(language[0]),), budget=AdviseBudget(1.0), out=tmp_path / "out", methods=("electra",), device="cpu")
    advising = _Advising(settings, tmp_path / "out", said.append, None)
    for arm_name in ("electra", "electra", "mlm"):
        with advising.warnings_of(arm_name) as heard:
            logging.getLogger("headstart.methods.electra.rows").warning("%d %% of the text is cut away", 13)
            heard("  WARNING    this budget of 3 steps does not suffice")
            heard("step 3: loss 7")
    logging.getLogger("headstart.methods.electra.rows").warning("outside")
    assert said == [
        "  WARNING    electra: 13 % of the text is cut away",
        "  WARNING    electra: this budget of 3 steps does not suffice",
        "  WARNING    mlm: 13 % of the text is cut away",
        "  WARNING    mlm: this budget of 3 steps does not suffice",
    ]


@pytest.mark.slow
def test_the_command_goes_on_with_the_trials_run_and_trains_nothing_twice(advised: tuple[Advice, list[str]]) -> None:
    advice, said = advised
    command = shlex.split(advice.info["commands"]["pretrain"])
    assert f"  {advice.info['commands']['pretrain']}" in said
    run = advice.folder / "causal-lm"
    before, stopped = records(run, "metrics"), run_info(run)["totals"]["steps"]
    assert stopped == arm(advice, "causal-lm")["points"][-1]["step"]
    done = headstart(*command[1:], "--trainer.stop-at", str(stopped + 20))
    assert done.returncode == 0, done.stderr
    after = records(run, "metrics")
    assert untimed(after[: len(before)]) == untimed(before), "what the trial trained stands as it was"
    steps = [line["step"] for line in after]
    assert steps == sorted(set(steps))
    assert run_info(run)["totals"]["steps"] == stopped + 20
    assert run_info(run)["decisions"]["total_steps"] == advice.info["candidates"][0]["steps"], "the schedule is that of the whole budget"


@pytest.mark.slow
def test_the_same_question_again_is_answered_at_once_and_another_one_is_refused(
    advised: tuple[Advice, list[str]], language: tuple[Path, Path]
) -> None:
    advice, said = advised
    before = (advice.folder / "advice.json").read_bytes()
    again, repeated = ask(*language, advice.folder)
    assert (advice.folder / "advice.json").read_bytes() == before
    assert again.info == advice.info
    assert repeated[-8:] == said[-8:]
    assert not any("splits" in line for line in repeated), "nothing is measured again"
    with pytest.raises(UsageError, match=r"another question \(budget"):
        ask(*language, advice.folder, **{"budget.minutes": 3.0})


@pytest.mark.slow
def test_where_text_teaches_nothing_a_random_start_does_not_lose_and_labelled_texts_in_the_data_are_named(tmp_path: Path) -> None:
    corpus, labels = write_language(tmp_path / "data", company=False, labels=60)
    (corpus / "labelled.jsonl").write_bytes(labels.read_bytes())
    advice, said = ask(corpus, labels, tmp_path / "out")
    assert advice.info["verdict"]["word"] in ("does not help", "not enough evidence"), said
    assert arm(advice, "causal-lm")["gain"]["ci95"][0] <= 0
    assert advice.info["leaks"]["share"] > 0.5, "but for those that are held out"
    assert any("on new texts the gain may be smaller" in note for note in advice.info["verdict"]["notes"])


@pytest.mark.slow
def test_a_killed_advice_goes_on_and_measures_nothing_twice(language: tuple[Path, Path], tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    question = flags(*language, out, minutes="3")

    def measured(points: int) -> bool:
        if not (out / "advice.json").exists():
            return False
        info = read_advice(out)
        return sum(len(point["values"]) for entry in info["arms"] for point in entry["points"]) >= points

    kept: dict[str, Any] = {}
    for values in (3, 7, 9):  # in the random start, and twice in the first rung
        process = start(*question, log=log)
        wait_until(lambda values=values: measured(values), process, log)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
        info = read_advice(out)
        for entry in info["arms"]:
            for point in entry["points"]:
                key = f"{entry['arm']} {point['rung']}"
                assert point["values"][: len(kept.get(key, []))] == kept.get(key, [])
                kept[key] = point["values"]
    done = headstart(*question, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == read_advice(out)
    assert found["status"] == "done"
    for entry in found["arms"]:
        for point in entry["points"]:
            key = f"{entry['arm']} {point['rung']}"
            assert len(point["values"]) == found["plan"]["splits"]
            assert point["values"][: len(kept.get(key, []))] == kept.get(key, [])
    steps = [line["step"] for line in records(out / "causal-lm", "metrics")]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_without_labels_it_says_that_the_evidence_is_weaker(language: tuple[Path, Path], tmp_path: Path) -> None:
    advice, said = ask(language[0], None, tmp_path / "out")
    assert advice.info["evidence"] == "no labels"
    assert advice.info["metric"] == "knn_halves"
    trained = arm(advice, "causal-lm")["points"]
    assert all(len(point["values"]) == advice.info["plan"]["splits"] and point["rankme"] > 1 for point in trained)
    assert any("which is weaker; give --labels FILE" in line for line in said)
    assert "Without labels this is weak" in advice.info["verdict"]["sentence"]
    assert "TRAIN.jsonl" in advice.info["commands"]["after"]


@pytest.mark.slow
def test_a_model_of_ones_own_is_an_arm_as_it_is_and_continued(language: tuple[Path, Path], advised: tuple[Advice, list[str]], tmp_path: Path) -> None:
    mine = advised[0].folder / "causal-lm"
    advice, said = ask(language[0], None, tmp_path / "out", init=mine, methods=("causal-lm,mlm",))
    names = {entry["arm"]: entry["kind"] for entry in advice.info["arms"]}
    assert names[f"{mine} as it is"] == "given model", said
    assert names["causal-lm-continued"] == "candidate"
    assert {"causal-lm", "mlm"} <= names.keys()
    left_out = {entry["method"]: entry["why"] for entry in advice.info["left_out"]}
    assert "no head of the kind" in left_out["mlm-continued"], "a decoder fills no masks"
    assert arm(advice, f"{mine} as it is")["points"][0]["values"] != arm(advice, "random start (causal-lm network)")["points"][0]["values"]


def test_a_budget_too_small_for_a_trial_says_so_and_names_one_that_is_not(language: tuple[Path, Path], tmp_path: Path) -> None:
    advice, said = ask(*language, tmp_path / "out", **{"budget.minutes": 0.02})
    assert advice.info["verdict"]["word"] == "no trial"
    assert advice.info["arms"] == []
    assert advice.info["commands"]["pretrain"] is None
    assert any("--budget.minutes" in line for line in said if line.startswith("Answer:"))
    other, said = ask(*language, tmp_path / "out", **{"budget.minutes": 0.03})  # as the answer says: the same folder takes another budget
    assert said[0].endswith("came to no trial; this is another question (budget: {'minutes': 0.02} -> {'minutes': 0.03}).")
    assert other.info["budget"]["minutes"] == 0.03


def test_an_advice_of_an_earlier_version_goes_on(language: tuple[Path, Path], tmp_path: Path) -> None:
    """It wrote "tiny" where nobody had named a preset."""
    out = tmp_path / "out"

    def going_on(preset: str | None) -> dict[str, Any]:
        settings = AdviseSettings(
            data=(str(language[0]),), budget=AdviseBudget(1.0), out=out, methods=("mlm",), device="cpu", preset=preset
        )
        asked = plain(replace(settings, out=None)) | {"labels_sha256": None}
        out.mkdir(exist_ok=True)
        if not (out / "advice.json").exists():
            before = {"kind": "advice", "format_version": 2, "status": "running", "settings": asked | {"preset": "tiny"}, "arms": []}
            (out / "advice.json").write_text(json.dumps(before))
        return _Advising(settings, out, lambda line: None, None).earlier(json.loads(json.dumps(asked)))

    assert going_on(None)["status"] == "running"
    assert going_on("tiny")["status"] == "running"
    with pytest.raises(UsageError, match=r"another question \(preset: 'tiny' -> 'small'\)"):
        going_on("small")


def test_labelled_texts_say_nothing_of_methods_on_images(language: tuple[Path, Path], tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", classes=2, each=4)
    with pytest.raises(UsageError, match="--labels are texts, and mae, droppos") as refused:
        ask(photos, language[1], tmp_path / "out", methods=("mae,droppos",), pretrain=())
    assert "finetune (image-classification) compares" in str(refused.value)
    with pytest.raises(BadInput, match="leave it out where the data are images"):
        ask(photos, photos, tmp_path / "out", methods=("mae",), pretrain=())
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") <= {".lock"}


# what is refused


def test_a_file_that_no_method_can_read_is_named_once(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", classes=2, each=4)
    (photos / "class0" / "x.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"class0/x\.png: is no image"):
        ask(photos, None, tmp_path / "out", methods=("mae,droppos",), pretrain=())


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("three.jsonl", [{"text": f"text {i}", "label": i % 2} for i in range(3)], "has 3 labelled records, too few"),
        ("one.jsonl", [{"text": f"text {i}", "label": "same"} for i in range(40)], "has only the class 'same'"),
        ("rare.jsonl", [{"text": f"text {i}", "label": "rare" if i == 7 else i % 2} for i in range(40)], "one record of the class 'rare'"),
        ("empty.jsonl", [{"text": " ", "label": i % 2} for i in range(40)], "the field 'text' is empty"),
        ("other.jsonl", [{"body": "text", "label": i % 2} for i in range(40)], "has no field 'text'"),
    ],
)
def test_labels_that_say_nothing_are_refused_before_anything_is_prepared(
    language: tuple[Path, Path], tmp_path: Path, name: str, lines: list[dict[str, str]], says: str
) -> None:
    labels = write_jsonl(tmp_path / name, lines)
    with pytest.raises(BadInput, match=says):
        ask(language[0], labels, tmp_path / "out")
    assert files(tmp_path) == {name}


def test_a_folder_without_data_and_a_kind_without_a_method_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.xyz").write_bytes(b"?")
    with pytest.raises(BadInput, match="nothing to pre-train on was recognised"):
        ask(tmp_path / "nothing", None, tmp_path / "out", methods=())
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "chair.obj").write_text("v 0 0 0\n")
    with pytest.raises(UsageError, match="holds meshes, and no method for that has code yet") as refused:
        ask(tmp_path / "meshes", None, tmp_path / "out", methods=())
    waiting = [card.slug for card in catalog.cards() if "meshes" in card.data_kinds]
    assert waiting
    assert all(slug in str(refused.value) for slug in waiting)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"budget.minutes": 0.0}, "--budget.minutes is 0"),
        ({"budget.minutes": None}, "No budget is given"),
        ({"methods": ("elektra",)}, "There is no method 'elektra'"),
        ({"pretrain": ("budget.steps=3",)}, "cannot be set here"),
        ({"pretrain": ("nonsense",)}, "cannot be set here"),
    ],
)
def test_wrong_settings_are_refused(language: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ask(*language, tmp_path / "out", **settings)
    assert files(tmp_path) == set()


def test_the_advice_never_lies_inside_the_data(language: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="would lie inside the data folder"):
        ask(*language, language[0] / "advice")


def test_candidates_are_all_methods_with_code_whose_card_asks_for_the_data() -> None:
    """No list of names: a method appears when its module does."""
    contents = FolderContents(Path("texts"), {"text": 3}, {}, 3, True)
    chosen, waiting = fitting_methods([contents, contents], [], True)
    fit = [card.slug for card in [*catalog.BASELINES.values(), *catalog.cards()] if "text" in card.data_kinds]
    homes = {slug: catalog.implementation(slug) for slug in fit}
    assert chosen == [slug for slug in fit if (homes[slug] or "").startswith("headstart.methods.")]
    assert {"causal-lm", "mlm", "electra"} <= set(chosen)
    assert {"mcl", "mindllm"} & {entry["method"] for entry in waiting} == {slug for slug in ("mcl", "mindllm") if homes[slug] is None}
    assert "rewarm" not in {entry["method"] for entry in waiting} | set(chosen), "an intervention composes with a method and is none"
    begun, left_out = fitting_methods([contents], [], False)
    assert set(chosen) - set(begun) == {"bioptimus", "medical_bert"}, "what is about a trained model, or two corpora, is tried where they are"
    assert any(entry["method"] == "medical_bert" and "2 corpora" in entry["why"] for entry in left_out)
    assert fitting_methods([contents], ["medical_bert"], False)[0] == ["medical_bert"], "who names it gets it"
    assert {"method": "bioptimus", "why": "goes on with a trained model: give --init", "minutes": None} in left_out
    assert fitting_methods([FolderContents(Path("x"), {"meshes": 1}, {}, 1, True)], [], False)[0] == [
        slug for slug in (card.slug for card in catalog.cards() if "meshes" in card.data_kinds) if catalog.implemented(slug)
    ]
