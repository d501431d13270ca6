import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.builtin import Document, builtin_documents, docstrings, listing_sha256, package_files
from headstart.data.text.config import TextConfig
from headstart.data.text.docstring_task import docstring_task, prose_sentences
from headstart.data.text.store import prepare_text

MODULE = '''"""Module {name}.

Second paragraph of {name}."""
import does_not_exist_anywhere
raise SystemExit("a package must never be imported")

class A:
    """Class docstring."""
    if True:
        def method(self):
            """Method
            docstring."""
            x = """no docstring"""
    async def other(self): "one line"
try:
    def f(): """In a try."""
except ImportError:
    def f(): """In a handler."""
'''


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python whose only installed packages are these."""
    root = tmp_path / "lib" / "site-packages"
    files = {
        "alpha/__init__.py": MODULE.format(name="alpha"),
        "alpha/core.py": MODULE.format(name="core"),
        "alpha/docs/guide.rst": "Guide\n=====\n\nText.",
        "alpha/broken.py": 'def f(:\n"""x"""',
        "alpha/template.md": "",
        "single.py": '"""A single module."""',
        "alpha-1.0.dist-info/top_level.txt": "alpha",
        "alpha/__pycache__/x.py": '"""no"""',
        "alpha/data.bin": "x",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "alpha/latin.rst").write_bytes(b"caf\xe9")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).name != "site-packages"] + [str(root)])
    return root


def test_docstrings_are_found_by_syntax_alone() -> None:
    text = docstrings(MODULE.format(name="x").encode())
    assert text.split("\n\n") == [
        "Module x.", "Second paragraph of x.", "Class docstring.", "Method\ndocstring.", "one line", "In a try.", "In a handler.",
    ]  # fmt: skip


def test_the_corpus_is_every_module_and_document_by_path(packages: Path) -> None:
    assert [(file.package, file.module) for file in package_files()] == [
        ("single", "single"),
        ("alpha", "alpha"),
        ("alpha", "alpha.broken"),
        ("alpha", "alpha.core"),
        ("alpha", "alpha/latin.rst"),
        ("alpha", "alpha/docs/guide.rst"),
    ]
    documents = list(builtin_documents(workers=2))
    assert [document.module for document in documents] == ["single", "alpha", "alpha.core", "alpha/docs/guide.rst"]  # what cannot be read has none
    assert documents == list(builtin_documents(workers=1))
    assert documents[0] == Document("A single module.", "single", "single")


def test_a_store_of_the_corpus_notices_a_new_package(packages: Path, tmp_path: Path) -> None:
    config = TextConfig(vocab_size=100, text_field="body", held_out_share=0.3, near_duplicate_share=1.0)
    store = prepare_text(["builtin:python-docs"], tmp_path / "store", config)
    assert store.manifest["counts"]["documents"] == 4
    assert store.file_names == ["builtin:python-docs"]
    prepare_text(["builtin:python-docs"], tmp_path / "store", config)
    (packages / "beta.py").write_text('"""New."""')
    with pytest.raises(UsageError, match=r"1 changed input files \(builtin:python-docs\)"):
        prepare_text(["builtin:python-docs"], tmp_path / "store", config)


def test_excluded_modules_and_unknown_corpora(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "keep_out.txt").write_text("alpha.core\nsingle\n")
    spec = f"builtin:python-docs?exclude={tmp_path / 'keep_out.txt'}"
    assert {file.module for file in package_files()} - {file.module for file in package_files(spec)} == {"alpha.core", "single"}
    assert listing_sha256(package_files()) != listing_sha256(package_files(spec))
    with pytest.raises(UsageError, match="unknown built-in corpus"):
        package_files("builtin:python-docs?include=x")
    with pytest.raises(BadInput, match="cannot be read"):
        package_files("builtin:python-docs?exclude=/nowhere")


# --- the labelled task --------------------------------------------------------------------------------------------------------------------------


def made_up_packages() -> list[Document]:
    """Three packages of 30 modules with 10 sentences each, one small package, sentences that must not be used."""
    documents = []
    for package in ("alpha", "beta", "gamma"):
        for index in range(30):
            own = [f"The {package[:3]} thing number {index} {line} does what it should do." for line in range(10)]
            label = f"A sentence of {index} that names {package.title()} gives its label away."
            common = ["This sentence stands in every single module of all.", label]
            code = [">>> x = f(1)  # this is code and not a sentence at all.", "x : a list of many parameters that is no prose."]
            documents.append(Document("\n\n".join([*own, *common, *code, "Too short."]), package, f"{package}.m{index}"))
        documents.append(Document("This is a documentation file that is not a module.", package, f"{package}/README.md"))
    documents.append(Document("The small package has only this one sentence to give.", "small", "small"))
    return documents


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_task_is_balanced_and_split_by_module(tmp_path: Path) -> None:
    task = docstring_task(made_up_packages(), tmp_path, n_classes=12, train_per_class=7, test_per_class=45, n_seeds=3)
    assert task.labels == ["alpha", "beta", "gamma"]
    test = read(task.test)
    assert Counter(record["label"] for record in test) == {"alpha": 45, "beta": 45, "gamma": 45}
    kept_out = set(task.keep_out.read_text().split())
    assert kept_out == {record["module"] for record in test}
    draws = [read(path) for path in task.train]
    for train in draws:
        assert Counter(record["label"] for record in train) == {"alpha": 7, "beta": 7, "gamma": 7}
        assert not {record["module"] for record in train} & kept_out
        assert len({record["text"] for record in train}) == 21
    assert len({json.dumps(train) for train in draws}) == 3
    texts = [record["text"] for record in test + draws[0]]
    assert not any(text.startswith(("This", "A sentence", ">>>", "x :", "Too")) for text in texts)
    assert all(record["module"].startswith(record["label"]) for record in test)


def test_the_task_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        docstring_task(made_up_packages(), tmp_path / name, train_per_class=7, test_per_class=45)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_only_the_largest_packages_become_classes(tmp_path: Path) -> None:
    documents = [*made_up_packages(), Document("Every other sentence counts for the delta thing as well.", "alpha", "alpha.extra")]
    assert docstring_task(documents, tmp_path, n_classes=2, train_per_class=7, test_per_class=45).labels == ["alpha", "beta"]


def test_too_few_packages_are_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="0 installed packages have 40 training and 1000 test sentences"):
        docstring_task(made_up_packages(), tmp_path, test_per_class=1000)


def test_prose_sentences() -> None:
    paragraphs = [
        "A first sentence of six words.  And a second\none over two lines!",
        "Parameters\n----------\nx : int\n    The number of things to do now.",
        "No end here at all today",
    ]
    text = "\n\n".join(paragraphs)
    assert list(prose_sentences(text)) == ["A first sentence of six words.", "And a second one over two lines!"]
