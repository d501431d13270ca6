"""Labelled files: every kind is read, and nothing wrong passes in silence."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput
from headstart.tasks.data import read_classification, read_questions, read_regression, read_tags

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tasks"
RECORDS = [{"text": "good, film", "label": "pos"}, {"text": "bad \"film\"", "label": "neg"}, {"text": "fine\nfilm", "label": "pos"}]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_jsonl(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def make_file(folder: Path, kind: str) -> Path:
    if kind == "csv":
        return write(folder / "a.csv", 'text,label\r\n"good, film",pos\r\n"bad ""film""",neg\r\n"fine\nfilm",pos\r\n')
    if kind == "tsv":
        return write(folder / "a.tsv", 'text\tlabel\ngood, film\tpos\nbad "film"\tneg\nfine\u2028film\tpos\n')
    if kind == "jsonl":
        return write(folder / "a.jsonl", "\ufeff" + as_jsonl(RECORDS) + "\n")
    if kind == "jsonl.gz":
        return write(folder / "a.jsonl.gz", gzip.compress(as_jsonl(RECORDS).encode()))
    if kind == "jsonl.zst":
        with pa.output_stream(str(folder / "a.jsonl.zst"), compression="zstd") as stream:
            stream.write(as_jsonl(RECORDS).encode())
        return folder / "a.jsonl.zst"
    pq.write_table(pa.Table.from_pylist(RECORDS), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_every_kind_of_file_gives_the_same_records(kind: str, tmp_path: Path) -> None:
    data = read_classification(make_file(tmp_path, kind))
    assert [text.replace("\u2028", "\n") for text in data.texts] == [record["text"] for record in RECORDS]
    assert data.classes == ["neg", "pos"]
    assert data.labels == [1, 0, 1]


def test_number_classes_are_sorted_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_jsonl([{"text": "x", "label": label} for label in (10, 9, 1.0)]))
    assert read_classification(path).classes == ["1", "9", "10"]


def test_pairs_have_a_second_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b,y\nx,1 2,no\nz,3,yes\n")
    data = read_classification(path, "a", "b", "y")
    assert (data.texts, data.seconds, data.classes) == (["x", "z"], ["1 2", "3"], ["no", "yes"])


def test_regression_reads_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,1.5\ny,-2\n")
    assert read_regression(path).labels == [1.5, -2.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "is empty\nGive a file that has some"),
        ("a.csv", "text,label\n", "holds no record\nGive a file that has some"),
        ("a.jsonl", as_jsonl(RECORDS) + "{oops\n", "record 4: is not valid JSON"),
        ("a.jsonl", as_jsonl(RECORDS) + "[1]\n", "record 4: is a list, not an object"),
        ("a.jsonl", as_jsonl([*RECORDS, {"txt": "x", "label": "pos"}]), r"record 4: has no field 'text', only 'txt', 'label'\nCorrect or"),
        ("a.jsonl", as_jsonl([{"txt": "x", "label": "pos"}]), r"record 1: has no .*\nName the right one: --text-field\."),
        ("a.jsonl", as_jsonl([{"text": "x"}]), r"record 1: has no field 'label', only 'text'\nName the right one: --label-field\."),
        ("a.jsonl", as_jsonl([*RECORDS, {"text": "x"}]), "record 4: has no field 'label'"),
        ("a.jsonl", as_jsonl([*RECORDS, {"text": 7, "label": "pos"}]), "record 4: the field 'text' is int, not text"),
        ("a.jsonl", as_jsonl([*RECORDS, {"text": "  ", "label": "pos"}]), "record 4: the field 'text' is empty"),
        ("a.jsonl", as_jsonl([*RECORDS, {"text": "x", "label": None}]), "record 4: the field 'label' is None"),
        ("a.jsonl", as_jsonl([*RECORDS, {"text": "x", "label": ["pos"]}]), "record 4: the field 'label' is"),
        ("a.jsonl", as_jsonl(RECORDS[:1]), "only the class 'pos'"),
        ("a.jsonl", as_jsonl(RECORDS).encode() + b'{"text": "\xff", "label": "pos"}\n', "record 4: is not UTF-8"),
        ("a.jsonl", as_jsonl(RECORDS).encode() + b"\0\n", "record 4: holds a NUL byte"),
        ("a.jsonl.gz", gzip.compress(as_jsonl(RECORDS).encode(), mtime=0)[:-12], "cannot be read"),
        ("a.jsonl.gz", b"no gzip at all", "cannot be read"),
        ("a.csv", "text,label\nx,pos\ny\n", "record 3: has 1 columns, the header 2"),
        ("a.csv", "text,klass\nx,pos\n", r"has no field 'label', only 'text', 'klass'\nName the right one: --label-field\."),
        ("a.csv", "text;label\nx;pos\n", r"has no field 'text', only 'text;label'\nIts columns seem to be separated by ';'\. Write it with commas"),
        ("a.tsv", "text,label\nx,pos\n", r"has no field 'text', only 'text,label'\nIts columns seem to be separated by ','\. Call it \.csv\."),
        ("a.csv", "text,label,label\nx,pos,neg\n", "has two columns 'label'"),
        ("a.tsv", "text\ttext\tlabel\nx\ty\tpos\n", "has two columns 'text'"),
        ("a.csv", 'text,label\n"x,pos\n', "is not valid CSV"),
        ("a.parquet", b"PAR1 but no more", "no readable parquet"),
        ("a.docx", "x", "a kind that is not read here"),
    ],
)
def test_bad_files_are_named_with_their_record(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(BadInput, match=message) as caught:
        read_classification(path)
    assert str(path) in str(caught.value)


def test_a_truncated_zstd_file_is_refused(tmp_path: Path) -> None:
    path = make_file(tmp_path, "jsonl.zst")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadInput):
        read_classification(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(BadInput, match="No such file"):
            read_classification(tmp_path / name)


def test_a_label_outside_the_list_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_jsonl(RECORDS))
    with pytest.raises(BadInput, match="record 2: the label 'neg' is not one of 'pos', 'mixed'"):
        read_classification(path, classes=["pos", "mixed"])
    assert read_classification(path, classes=["pos", "neg"]).labels == [0, 1, 0]


@pytest.mark.parametrize(("label", "message"), [("high", "not a finite"), ("nan", "not a finite"), (True, "not a finite"), (7, "outside 0 to 5")])
def test_numbers_that_cannot_be_used_are_refused(label: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_jsonl([{"text": "x", "label": 1}, {"text": "y", "label": label}]))
    with pytest.raises(BadInput, match=f"record 2: .*{message}"):
        read_regression(path, minimum=0, maximum=5)


def test_conll_sentences() -> None:
    data = read_tags(FIXTURES / "entities.conll")
    assert data.words == [["Anna", "Berg", "lives", "in", "Oslo", "."], ["Oslo", "is", "cold", "."]]
    assert data.tags == [["B-PER", "I-PER", "O", "O", "B-LOC", "O"], ["B-LOC", "O", "O", "O"]]


def test_tagged_jsonl_as_lists_or_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_jsonl([{"words": ["a", "b"], "tags": ["X", "Y"]}, {"words": "c d", "tags": "Y X"}]))
    data = read_tags(path)
    assert (data.words, data.tags) == ([["a", "b"], ["c", "d"]], [["X", "Y"], ["Y", "X"]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", "Anna B-PER\nBerg\n", "record 2: the word 'Berg' has no tag"),
        ("a.conll", "Anna\tB-PER\nBerg\t\n", "record 2: the word 'Berg' has no tag"),
        ("a.conll", "-DOCSTART- O\n\n", "holds no sentence"),
        ("a.jsonl", as_jsonl([{"words": ["a", "b"], "tags": ["X"]}]), "record 1: has 2 words but 1 tags"),
        ("a.jsonl", as_jsonl([{"words": [], "tags": []}]), "record 1: the field 'words' is neither"),
        ("a.jsonl", as_jsonl([{"words": [1], "tags": ["X"]}]), "record 1: the field 'words' is neither"),
    ],
)
def test_bad_tagged_files(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        read_tags(write(tmp_path / name, content))


def test_a_tag_outside_a_given_list_is_refused() -> None:
    with pytest.raises(BadInput, match="record 3: the tag 'B-PER'"):
        read_tags(FIXTURES / "entities.conll", ["O", "B-LOC"])


def test_squad() -> None:
    data = read_questions(FIXTURES / "squad.json", training=True)
    assert [question.id for question in data.questions] == ["m1", "m2", "m3", "c1"]
    assert data.questions[1].answers == ("Anna Berg", "Berg")
    assert [question.impossible for question in data.questions] == [False, False, True, False]
    for question in data.questions:
        if not question.impossible:
            assert question.context[question.start :].startswith(question.answers[0])
    assert data.dropped == []


def squad(path: Path, n_good: int, start: int = 0) -> Path:
    good = [{"id": f"g{i}", "question": "q?", "answers": [{"text": "one", "answer_start": 0}]} for i in range(n_good)]
    bad = {"id": "bad", "question": "q?", "answers": [{"text": "one", "answer_start": start}]}
    return write(path, json.dumps({"data": [{"paragraphs": [{"context": "one two", "qas": [*good, bad]}]}]}))


def test_an_answer_that_is_not_at_its_offset_is_dropped_named_and_counted(tmp_path: Path) -> None:
    path = squad(tmp_path / "a.json", 30, start=4)
    data = read_questions(path, training=True)
    assert len(data) == 30
    assert data.dropped == ["question 31 (id bad): answer 'one' is not at character 4"]
    assert len(read_questions(path)) == 31  # for testing the text alone counts


def test_many_answers_that_are_not_at_their_offset_stop_the_reading(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1 of 11 questions"):
        read_questions(squad(tmp_path / "a.json", 10, start=4), training=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no SQuAD file"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "without context"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": []}]}]}', "holds no question"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": [{"question": ""}]}]}]}', "record 1: .*without question"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "q"}]}]}]}', "record 1: question has no answer"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "q", "answers": [{"text": "x"}]}]}]}]}', "question has no answer"),
    ],
)
def test_bad_squad_files(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        read_questions(write(tmp_path / "a.json", content))


def test_a_tsv_is_a_csv_with_tabs(tmp_path: Path) -> None:
    """Quotes as pandas, R and spreadsheets write them, which texts without labels were read with always; a quote within a field is a character."""
    rows = 'text\tlabel\n"He said ""hi"""\tpos\n"two\nlines\tand a tab"\tneg\n5" pipe\tpos\n'
    assert read_classification(write(tmp_path / "a.tsv", rows)).texts == ['He said "hi"', "two\nlines\tand a tab", '5" pipe']
    with pytest.raises(BadInput, match=r"a\.tsv, record 2: holds several records: .*later line closes\.\nPut double quotes around"):
        read_classification(write(tmp_path / "a.tsv", 'text\tlabel\n"Well\tpos\nfine"\tneg\n'))
    with pytest.raises(BadInput, match=r"a\.tsv, record 2: is not valid TSV"):
        read_classification(write(tmp_path / "a.tsv", 'text\tlabel\n"Well," he said.\tpos\nfine\tneg\n'))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_labelled_lines_may_end_in_cr_alone(name: str, tmp_path: Path) -> None:
    rows = as_jsonl(RECORDS[:2]) if name == "a.jsonl" else 'text,label\n"good, film",pos\nbad "film",neg\n'
    rows = rows.replace('"good, film"', "good; film").replace(",", "\t").replace(";", ",") if name == "a.tsv" else rows
    assert read_classification(write(tmp_path / name, rows.replace("\n", "\r"))).texts == ["good, film", 'bad "film"']


def test_a_labelled_file_in_utf_16_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.csv: is UTF-16, not UTF-8\.\nConvert it: iconv"):
        read_classification(write(tmp_path / "a.csv", "text,label\nx,pos\n".encode("utf-16")))
