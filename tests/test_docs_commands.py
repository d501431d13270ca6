"""Every command and every Python block of README, docs and docstrings runs, on small data (`tests/docs_commands.py`: how they are made small)."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from headstart.cli import main as cli
from headstart.core.config import replace_nested
from tests.corpus import labelled, write_corpus, write_jsonl
from tests.curate.crawl import crawl
from tests.data.image.pictures import write_folder
from tests.docs_commands import FENCE, INLINE, PARSED_ONLY, ROOT, SMALL, commands, elsewhere, is_form, made_folder, small
from tests.planning.tables import rows, write
from tests.running import torchrun

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def docstring_commands() -> list[str]:
    """The commands that docstrings of the package show."""
    found: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value.strip("\n"):
                found += INLINE.findall(node.value)
            elif isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                found += INLINE.findall(ast.get_docstring(node) or "")
    return list(dict.fromkeys(found))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT)).removesuffix(".md")


def runs_in_process(words: list[str]) -> tuple[int, str]:
    """`headstart ...` in this process: (exit code, what it printed)."""
    printed = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = cli.main(words)
    except SystemExit as end:  # argparse and tyro
        code = end.code if isinstance(end.code, int) else 1
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, printed.getvalue()


def write_inputs(folder: Path) -> None:
    """What the pages call my/texts, train.jsonl ..."""
    write_corpus(folder / "my" / "texts")
    (folder / "my" / "notes").mkdir()
    sentences = [record["text"] for record in labelled(400, 9)]
    notes = ("\n".join(sentences[start : start + 8]) for start in range(0, len(sentences), 8))
    (folder / "my" / "notes" / "notes.txt").write_text("\n\n".join(notes))
    for file, seed in (("old", 1), ("new", 2)):
        write_jsonl(folder / f"{file}.jsonl", [{"text": record["text"]} for record in labelled(200, seed)])
    for file, seed in (("pool", 3), ("reference", 4)):
        sentences = [record["text"] for record in labelled(400, seed)]
        write_jsonl(folder / f"{file}.jsonl", [{"text": " ".join(sentences[start : start + 12])} for start in range(0, len(sentences), 12)])
    items = [{"task": "boats", "context": "the boat", "choices": [" sails near the river.", " cooks."], "answer": 0}] * 4
    write_jsonl(folder / "items.jsonl", items)
    write_folder(folder / "my" / "images", classes=1, each=40)
    write_folder(folder / "views", classes=1, each=40)
    write(folder / "losses.csv", rows())
    crawl(folder / "crawl", files=1, pages_each=24)
    (folder / "my" / "pairs").mkdir()
    for number, image in enumerate(sorted((folder / "views").rglob("*.*"))):
        image.rename(folder / "my" / "pairs" / f"{number // 2:02d}_{number % 2 + 1}{image.suffix}")
    for split in ("train", "test"):
        write_folder(folder / "my" / "classes" / split, classes=3, each=12)
        write_tiles(folder / "my" / "tile-classes" / split, classes=("field", "town"), each=8)
    write_tiles(folder / "my" / "tiles", classes=("",), each=40)
    write_dense(folder / "my")
    (folder / "score.py").write_text("def score(words):\n    return [word.count('G') + 1 for word in words]\n")
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "baskets.py", folder / "examples")
    write_jsonl(folder / "reviews.jsonl", [{"body": record["text"]} for record in labelled(200, 1)])
    for file, seed in (("train", 3), ("test", 4), ("dev", 5), ("labels", 6)):
        records = labelled(32, seed)
        write_jsonl(folder / f"{file}.jsonl", records)
        (folder / f"{file}.csv").write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in records))
    for split, topics in (("train", ("boat", "cook", "fox")), ("test", ("owl", "soup"))):
        write_jsonl(folder / f"pairs-{split}.jsonl", [{"source": topic, "target": f"the {topic} waits."} for topic in topics])
        tagged = (f"the\tO\n{topic}\tB-Thing\nwaits\tO\n" for topic in topics)
        (folder / f"tags-{split}.tsv").write_text("\n".join(tagged))
    write_ranking(folder)


def write_ranking(folder: Path) -> None:
    """A collection, queries and what is relevant to each: the document that holds it."""
    texts = [record["text"] for record in labelled(60, 7)]
    write_jsonl(folder / "documents.jsonl", [{"id": f"d{number}", "title": "Note", "text": text} for number, text in enumerate(texts)])
    numbers = {"queries": range(12), "train-queries": range(12), "dev-queries": range(12, 16), "test-queries": range(16, 22)}
    for file, of_file in numbers.items():
        (folder / f"{file}.tsv").write_text("".join(f"q{i}\t{' '.join(texts[i].split()[1:5])}\n" for i in of_file))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(22)))
    (folder / "bm25.run").write_text("".join(f"q{i} Q0 d{(i + k) % 60} {k + 1} {9 - k} bm25\n" for i in range(22) for k in range(8)))


def write_tiles(folder: Path, classes: tuple[str, ...], each: int) -> None:
    """Arrays of ten bands, a folder for each class."""
    random = np.random.default_rng(each)
    for place, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            np.save(folder / label / f"{number:03d}.npy", random.integers(500 * place, 2000 + 500 * place, (10, 24, 24)).astype(np.uint16))


def write_dense(folder: Path) -> None:
    """Images of 24 pixels with masks, depths in millimetres, and a rig of two cameras with disparities."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for task, places in {"masks": ("images", "masks"), "depth": ("images", "depth"), "stereo": ("left", "right", "disparity")}.items():
            for place in places:
                (folder / task / split / place).mkdir(parents=True)
            for number in range(4):
                values = random.integers(1, 4, (24, 24))
                for place in places:
                    file = folder / task / split / place / f"{number}.png"
                    if place == "disparity":
                        np.save(file.with_suffix(".npy"), values.astype(np.float32))
                    elif place == "masks":
                        Image.fromarray(values.astype(np.uint8)).save(file)
                    elif place == "depth":
                        Image.fromarray((1000 * values).astype(np.uint16)).save(file)
                    else:
                        Image.fromarray(random.integers(0, 256, (24, 24, 3)).astype(np.uint8)).save(file)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those inputs and what a reader made on earlier pages: a run of each method, a store, a BERT."""
    from transformers import BertConfig, BertForMaskedLM

    from headstart.data.text.store import open_text_store
    from headstart.interop.transformers_io import save_model_folder

    folder = tmp_path_factory.mktemp("reader")
    write_inputs(folder)
    with contextlib.chdir(folder):
        for method in ("causal-lm", "mlm", "electra"):
            code, printed = runs_in_process(small(f"headstart pretrain {method} --data my/texts"))
            assert code == 0, printed
        for method in ("mae", "droppos"):
            code, printed = runs_in_process(small(f"headstart pretrain {method} --data my/images"))
            assert code == 0, printed
        code, printed = runs_in_process(small("headstart pretrain prop --data my/texts --method.min-doc-words 3"))
        assert code == 0, printed
        code, printed = runs_in_process(small("headstart pretrain satmaepp --data my/tiles --image.mode bands"))
        assert code == 0, printed
        code, printed = runs_in_process(small("headstart pretrain croco --data my/pairs"))
        assert code == 0, printed
        code, printed = runs_in_process(small("headstart pretrain oc_gfn --data builtin:tfbind8"))
        assert code == 0, printed
        assert runs_in_process(small("headstart prepare mlm --data my/texts --out stores/mine"))[0] == 0
        store = open_text_store(Path("stores/mine"))
        size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
        bert = BertForMaskedLM(BertConfig(vocab_size=store.vocab_size, max_position_embeddings=64, **size))
        save_model_folder(bert, store.tokenizer, Path("path/to/bert"))
        shutil.copytree("runs/causal-lm-tiny-0/export", "path/to/llama")  # weights alone, as from elsewhere
    return folder


def run_all(found: list[str], where: str) -> None:
    """Runs commands in the current folder. What an earlier page made is there until a command makes it itself."""
    for command in found:
        if elsewhere(command) or is_form(command):
            continue
        assert command.startswith(("headstart ", "torchrun ")), f"{where}: nobody runs `{command}`, and ELSEWHERE has no reason"
        words = small(command)
        if any(re.fullmatch(pattern, command) for pattern in PARSED_ONLY):
            cli.parse(importlib.import_module(f"headstart.cli.{words[0]}"), words[0], words[1:])
            continue
        if words[0] in ("pretrain", "prepare"):
            shutil.rmtree(made_folder(words), ignore_errors=True)
        if command.startswith("torchrun"):
            done = torchrun(2, "headstart", *words, cwd=Path.cwd())
            code, printed = done.returncode, done.stdout + done.stderr
        else:
            code, printed = runs_in_process(words)
        assert code == 0, f"{where}: {command}\n{' '.join(words)}\n{printed[-2500:]}"


def test_pages_have_commands() -> None:
    """The tests below would pass on pages whose commands they cannot find."""
    found = {name(page): len(commands(page.read_text(encoding="utf-8"))) for page in PAGES}
    assert found["docs/troubleshooting"] >= 30
    assert found["docs/quick-start"] >= 8
    assert found["README"] >= 5
    assert len(docstring_commands()) >= 5


def test_a_command_that_nobody_runs_is_found() -> None:
    with pytest.raises(AssertionError, match="nobody runs `mkdocs gh-deploy`"):
        run_all(commands("```bash\nmkdocs gh-deploy\n```"), "a page")
    with pytest.raises(AssertionError, match="headstart guess METHOD"):
        run_all(commands("Type `headstart guess METHOD`."), "a page")
    with pytest.raises(AssertionError, match="make everything"):
        run_all(commands("`make everything`"), "a page")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text(encoding="utf-8"))], ids=name)
def test_commands_run(page: Path, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with contextlib.chdir(tmp_path):
        run_all(commands(page.read_text(encoding="utf-8")), name(page))


@pytest.mark.slow
def test_commands_of_docstrings_run(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with contextlib.chdir(tmp_path):
        run_all(docstring_commands(), "a docstring")


def blocks(page: Path, language: str) -> list[str]:
    return [body for _, found, body in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_blocks_run(page: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, in one namespace, budgets made small."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    code = "\n".join(blocks(page, "python"))
    code = re.sub(r'headstart\.pretrain\((.*)\*\*\{"budget\.\w+": [\d.e]+(, )?', r"fresh_pretrain(\1**SMALL, **{", code)
    code = code.replace('"budget.minutes": 10', '"budget.minutes": 0.2')
    with contextlib.chdir(tmp_path):
        for model in re.findall(r'"(runs/\w+)/model"', code):  # the page has made it by a command
            found = next(command for command in commands(page.read_text()) if f"--out {model}" in command)
            assert runs_in_process(small(found))[0] == 0
        exec(compile(code, name(page), "exec"), {"SMALL": SMALL, "fresh_pretrain": fresh_pretrain})


def fresh_pretrain(method: str, data: str, **settings: Any) -> Any:
    """`headstart.pretrain`, where the run of an earlier page lies in the way."""
    import headstart

    shutil.rmtree(Path("runs") / f"{method}-tiny-0", ignore_errors=True)
    return headstart.pretrain(method, data, **settings)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name)
def test_yaml_blocks_are_settings(page: Path) -> None:
    from headstart.verbs.config import PretrainConfig

    for block in blocks(page, "yaml"):
        found = yaml.safe_load(block)
        if isinstance(found, list):  # a mixture file of --mix
            assert all({"store", "share"} <= part.keys() <= {"store", "share", "replace"} for part in found)
        else:
            replace_nested(PretrainConfig(), found)
