"""A recipe over a crawl: passes of stages, with what the whole corpus must be asked between them.

The folder:

    curate.json            recipe, settings, input files
    answers/               what the whole corpus answered: classifiers, scores of an endpoint, duplicates, frequent images, fetched images
    work/N/                the documents between two passes (moved to .work.tmp and removed at the end unless they are asked for)
    documents/             the output, a file a shard: Parquet, or JSON lines
    documents/counts/      counts of the last pass, a file a shard; work/N/counts/ of the others
    counts.json            kept and dropped of every stage, with samples; its presence means "complete"
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart import __version__
from headstart.core.config import differences
from headstart.core.curation import ABOUT, COUNTS, DOCUMENTS, IMAGES, images_beside, shard_name
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write, open_lock, read_json, write_json
from headstart.curate import engine, stages, training
from headstart.curate.addresses import Source, find_sources
from headstart.curate.config import CurateConfig, ReadConfig
from headstart.curate.counts import StageCounts, from_json, to_json
from headstart.curate.duplicates import FEW, FEW_GRAMS, equal_urls, near_duplicates
from headstart.curate.fasttext import save_classifier
from headstart.curate.given import check_given, input_again, settings_given
from headstart.curate.images import frequent_images, wanted_images
from headstart.curate.minhash import BANDS, ROWS, found_with, threshold
from headstart.curate.passes import Pass, timed
from headstart.curate.sources import UNREADABLE, read_source

FORMAT = 1
LEAVING = ".work.tmp"
"""The folder work/ of a curation that is finished. A kill leaves it, and the next call removes it; where the counts are missing it is work/ still."""
MAX_DRAWN = 20_000
"""Random documents of one shard, at most: they are held in memory."""
OURS = re.compile(rf"\.lock|\.{re.escape(ABOUT)}\.\d+\.tmp")
"""What a kill leaves that comes before the folder says what it is."""
REPORT = "report.html"
HOW_LONG = ("max_bad_share", "timeout_s", "tries")
"""Settings of reading that say when to stop, not what comes out."""
BEFORE = {"images": {"min_side": 0, "ads": False}}
"""Settings that were added since, each with the value under which a curation without it began."""
LEAVES_NOTHING = {
    "read": "Give files of Common Crawl (WARC with responses), or JSON lines or Parquet with html or text.",
    "prefilter": "Look at the addresses and sizes of the pages: --prefilter.min-bytes, --prefilter.max-bytes.",
    "language": "Name the languages that you want: --language.keep en de, or --language.keep with none for all.",
    "extract": "Look at the examples in the report; --page-seconds gives slow pages more time.",
    "recall": "Lower --recall.at-least, or give documents of your domain: --recall.positives.",
    "near-duplicates": "Give other input: it repeats itself.",
    "urls": "Give other input: it repeats itself.",
    "rules": "Look at the examples in the report; --rules.max-punctuation 1 and --rules.min-words 0 let everything through.",
    "precision": "Lower --precision.at-least, or give scores: --precision.scores.",
    "decontaminate": "The documents are the benchmark itself; give other --decontaminate.benchmarks, or none.",
    "images": "The documents had images alone; --images.no-https and --images.max-documents keep more of them.",
    "galleries": "The documents had images alone; --images.galleries keep leaves them as they are.",
}
"""What to change where a stage kept nothing."""


@dataclass(frozen=True)
class Curation:
    """A finished curation.

    Attributes:
        folder: where it lies.
        stages: counts of every stage.
        files: the output.
        seconds: of the workers by stage, and of what the whole corpus was asked ("asked: ..."), in the call that made this; what was there
            before took none.
    """

    folder: Path
    stages: list[StageCounts]
    files: list[Path]
    seconds: dict[str, float] = field(default_factory=dict)


def curate(
    recipe: str,
    addresses: Sequence[str],
    out: Path,
    config: CurateConfig,
    *,
    run_on: str = "embedded",
    ray_address: str | None = None,
    workers: int = 1,
    keep_work: bool = False,
    say: Callable[[str], None] = print,
) -> Curation:
    """Takes the input through a recipe. The same call continues what was killed, and does nothing where all is done. Stages that nothing comes to are
    left out; whether the corpus is empty is for the caller to see (`nothing_kept`).

    Args:
        recipe: a name of `stages.RECIPES`.
        addresses: as `find_sources` takes them.
        out: the folder of the curation.
        run_on: "embedded" or "ray"; ray_address: of the cluster.
        workers: processes at a time.
        keep_work: leave the documents between the passes.

    Raises:
        BadInput: no input, too much of it cannot be read, or a classifier has nothing to learn from.
        UsageError: the folder holds another curation, or another process is writing to it.
    """
    names = stages.recipe(recipe, config)
    for address in addresses:
        if "://" not in address and Path(address).is_dir() and out.resolve().is_relative_to(Path(address).resolve()):
            raise UsageError(f"{out} lies in the data ({address}).", "Give a folder outside: what is written there would be read as data.")
    begun = (out / ABOUT).is_file()
    sources = () if begun else tuple(find_sources(addresses, config.read))
    with _alone(out):
        _after_a_kill(out)
        known = read_json(out / ABOUT) if begun else {}
        is_over = partial(_is_over, out, names, config, len(known.get("sources", ())))
        if begun:
            sources = tuple(input_again(addresses, known.get("sources", ()), config.read, is_over))
        settings, gone = settings_given(config, known.get("settings", {}), is_over)
        if not (out / COUNTS).is_file():  # before the folder takes these files and no others
            check_given([name for name in names if name not in gone], config, stages.Answers(out / "answers"), say)
        _claim(out, recipe, names, settings, sources)
        seconds: dict[str, float] = {}
        if not (out / COUNTS).is_file():
            engine.start(run_on, ray_address)
            counts = _through(names, sources, out, config, run_on, workers, say, seconds)
            if not config.images.download and (fetched_into := _fetched_into(sources)):
                with timed(seconds, "images of the input"):
                    _carry(fetched_into, out, len(sources), config.form, say)
            if not keep_work and (out / "work").is_dir():
                (out / "work").rename(out / LEAVING)
            write_json(out / COUNTS, {"recipe": recipe, "version": __version__, "stages": to_json(counts)})
            shutil.rmtree(out / LEAVING, ignore_errors=True)
        return _finished(out, len(sources), config.form, seconds)


def _through(
    names: Sequence[str],
    sources: tuple[Source, ...],
    out: Path,
    config: CurateConfig,
    run_on: str,
    workers: int,
    say: Callable[[str], None],
    seconds: dict[str, float],
) -> list[StageCounts]:
    """The passes, one after another, with what is asked between them: counts of every stage up to the last that something came to.

    Args:
        seconds: what each took is added here.
    """
    answers = stages.Answers(out / "answers")
    answers.folder.mkdir(parents=True, exist_ok=True)
    counts: list[StageCounts] = []
    done: Pass | None = None
    learns = any(name in ("recall", "precision") and stages.asks_first(name, config) for name in names)
    draw = min(-(-config.recall.negatives // len(sources)), MAX_DRAWN) if learns else 0
    first = out / "work" / "0"
    for number, (asked, group, last) in enumerate(_passes(names, config)):
        for place, name in enumerate(asked):
            assert done is not None
            with timed(seconds, f"asked: {name}"):
                _ask(name, done, asked[:place], [first / "random" / shard_name(shard) for shard in range(len(sources))], say)
        folder = out / DOCUMENTS if last else out / "work" / str(number)
        before = None if done is None else done.folder
        done = Pass(folder, group, before, sources, config, answers, last, draw if number == 0 else 0)
        found = engine.run_pass(done, engine=run_on, workers=workers, seconds=seconds)
        if number == 0:
            _refuse_damage(done, found[0], config.read.max_bad_share)
        counts += found
        for stage in found:
            say(line(stage))
            if few := stage.items[FEW]:
                why = f"have fewer than {FEW_GRAMS} 5-grams of words: of what is written without blanks copies are hardly found"
                say(f"near-duplicates: {few:,} texts {why}")
        if not found[-1].kept:
            break
    return counts


def _passes(names: Sequence[str], config: CurateConfig) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], bool]]:
    """The stages cut where the whole corpus must be asked: (stages that ask before, stages of the pass, whether it is the last)."""
    groups: list[list[str]] = [[]]
    for name in names:
        if stages.asks_first(name, config) and not (name == "urls" and groups[-1] == ["near-duplicates"]):  # these two drop by one list each
            groups.append([])
        groups[-1].append(name)
    groups = [group for group in groups if group] if groups[0] else groups  # the first only reads, if all ask
    for place, group in enumerate(groups):
        asked = tuple(name for name in group if stages.asks_first(name, config))
        yield asked, tuple(group), place == len(groups) - 1


def _is_over(out: Path, names: Sequence[str], config: CurateConfig, n_shards: int, stage: str) -> bool:
    """Whether nothing that was given for a stage is opened any more: its pass is finished, or what it learns is learned. "read": the input."""
    answers, sources = stages.Answers(out / "answers"), (Source("", 0),) * n_shards
    if (out / COUNTS).is_file() or (stage in ("recall", "precision") and answers.of(stage).is_file()):
        return True
    if stage not in ("read", *names):
        return True
    for number, (_, group, last) in enumerate(_passes(names, config)):
        if Pass(out / DOCUMENTS if last else out / "work" / str(number), group, None, sources, config, answers, last).unfinished():
            return False
        if stage in group or stage == "read":
            return True
    return False


def _after_a_kill(out: Path) -> None:
    """Takes away what a process left half written, and what it was about to remove. Counts are written last: with them all else is whole."""
    complete = (out / COUNTS).is_file()
    for folder in () if complete else (out / "answers", out / "work", out / LEAVING, out / DOCUMENTS, out / IMAGES):
        for left in folder.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
    for name in (ABOUT, COUNTS, REPORT):
        for left in out.glob(f".{name}.*.tmp"):
            left.unlink(missing_ok=True)
    if not (out / LEAVING).is_dir():
        return
    if complete or (out / "work").exists():
        shutil.rmtree(out / LEAVING, ignore_errors=True)
    else:
        (out / LEAVING).rename(out / "work")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The folder, made where it is missing, held by one process at a time.

    Raises:
        UsageError: it holds something else, or another process is writing to it.
    """
    if not (out / ABOUT).exists() and out.exists() and (not out.is_dir() or any(not OURS.fullmatch(path.name) for path in out.iterdir())):
        raise UsageError(f"{out} holds something else.", "Give a new folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open_lock(out / ".lock")
    except OSError as error:
        raise UsageError(f"The folder {out} cannot be made: {error.strerror}.", "Choose another --out.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"Another process is writing to the curation {out}.", "Wait for it, or choose another --out.") from None
        yield


def _claim(out: Path, recipe: str, names: Sequence[str], settings: dict[str, Any], sources: Sequence[Source]) -> None:
    """Writes what this curation is, or compares it with what lies there."""
    settings = settings | {"read": {name: value for name, value in settings["read"].items() if name not in HOW_LONG}}
    about = {"format": FORMAT, "recipe": recipe, "stages": list(names), "settings": settings, "sources": [[one.address, one.size] for one in sources]}
    file = out / ABOUT
    if not file.exists():
        write_json(file, about)
        return
    before = read_json(file)
    known = before.get("settings", {})
    known = _comparable(known | {group: added | known.get(group, {}) for group, added in BEFORE.items()})
    changed = [name for name in about if before.get(name) != about[name] and name != "settings"]
    new = _comparable(settings)
    told = differences({group: known.get(group) for group in new}, new)
    changed += [f"--{name.replace('_', '-')} ({old!r} -> {value!r})" for name, old, value in told]
    if changed:
        raise UsageError(f"{out} holds a curation with other {', '.join(changed)}.", "Give another folder, or the settings of before.")


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that do not decide what comes out: how long is waited, and where the server stands whose model scores."""
    read, precision = settings.get("read", {}), settings.get("precision", {})
    return settings | {
        "read": {name: value for name, value in read.items() if name not in HOW_LONG},
        "precision": precision | {"endpoint": precision.get("endpoint") is not None},
    }


def _finished(out: Path, n_shards: int, form: str, seconds: dict[str, float]) -> Curation:
    files = [out / DOCUMENTS / shard_name(shard, form) for shard in range(n_shards)]
    return Curation(out, from_json(read_json(out / COUNTS)["stages"]), [file for file in files if file.is_file()], seconds)


def nothing_kept(done: Curation) -> BadInput | None:
    """The error of a curation that kept no document: which stage dropped the last ones, where most went, and what to change. None: it kept some."""
    emptied = next((stage for stage in done.stages if not stage.kept), None)
    if emptied is None:
        return None
    what = "no document: there is no record in the input."
    if emptied.entered:
        most = max(done.stages, key=lambda stage: stage.dropped.total())
        before = "" if most is emptied else f" (before that {_dropped(most)})"
        what = f"no document is left of {done.stages[0].entered:,} records: {_dropped(emptied)}{before}."
    mend = LEAVES_NOTHING.get(emptied.stage, "Look at the report.")
    return BadInput(what, f"{mend} Then curate into another folder.", file=done.folder)


def _dropped(stage: StageCounts) -> str:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in stage.dropped.most_common(3)) + (" ..." if len(stage.dropped) > 3 else "")
    return f"{stage.stage} dropped {stage.dropped.total():,} of {stage.entered:,}, {reasons}"


def _refuse_damage(first: Pass, read: StageCounts, max_share: float) -> None:
    """Raises BadInput where more than a share of the records cannot be read; it names the file with most of them."""
    if _damaged(read) > max_share * max(read.entered, 1):
        bad = [(reason.removeprefix(UNREADABLE), n) for reason, n in read.dropped.most_common() if reason.startswith(UNREADABLE)]
        told = ", ".join(f"{reason} {n:,}" for reason, n in bad)
        worst, shard = max((_damaged(first.read_counts(shard)[0]), -shard) for shard in range(len(first.sources)))
        what = f"{_damaged(read):,} of {read.entered:,} records cannot be read ({told}), more than {100 * max_share:g} %"
        fields = "Records have html, text, or text_list with image_list. " if any(reason == "no text" for reason, _ in bad) else ""
        mend = f"{fields}Mend the files, or download them again, and give a new --out; or raise --read.max-bad-share."
        raise BadInput(f"{what}; {worst:,} of them in {first.sources[-shard].address}.", mend)


def _damaged(read: StageCounts) -> int:
    return sum(n for reason, n in read.dropped.items() if reason.startswith(UNREADABLE))


def line(stage: StageCounts) -> str:
    """One stage in words."""
    share = 100 * stage.kept / stage.entered if stage.entered else 100.0
    text = f"{stage.stage}: {stage.kept:,} of {stage.entered:,} stay ({share:.1f} %)"
    reasons = [f"{reason} {n:,}" for reason, n in stage.dropped.most_common(4)]
    return text + (f"; dropped: {', '.join(reasons)}" + (" ..." if len(stage.dropped) > 4 else "") if reasons else "")


# what the whole corpus is asked


def _ask(name: str, before: Pass, asked: Sequence[str], random: Sequence[Path], say: Callable[[str], None]) -> None:
    """Writes the answer that a stage needs, unless it is there.

    Args:
        before: the pass whose documents are asked.
        asked: stages of the same group that were asked already: what they drop is not asked any more.
        random: files of random documents, as they were extracted.
    """
    config, answers = before.config, before.answers
    if answers.of(name).is_file():
        return
    import daft

    documents = engine.documents([before.documents(shard) for shard in range(len(before.sources))])
    for earlier in asked:
        documents = documents.join(daft.from_arrow(pq.read_table(answers.of(earlier)).select(["order"])), on="order", how="anti")
    if name == "near-duplicates":
        shares = f"pairs of Jaccard similarity {threshold():.2f} are found about half of the time, of 0.8 in {100 * found_with(0.8):.0f} %"
        say(f"near-duplicates: {BANDS} bands of {ROWS} hashes; {shares}")
        _write(near_duplicates(documents, config.near), answers.of(name))
    elif name == "urls":
        _write(equal_urls(documents, config.urls), answers.of(name))
    elif name == "images":
        _ask_images(documents, before, say)
    else:
        drawn = training.sample(engine.documents(random), config.recall.negatives, config.recall.seed)
        if name == "recall":
            learned = training.recall(drawn, config, say)
        else:
            learned = training.precision(documents, drawn, config, say, kept=answers.scores)
        save_classifier(learned, answers.of(name))


def _ask_images(documents: Any, before: Pass, say: Callable[[str], None]) -> None:
    config, answers = before.config, before.answers
    frequent = frequent_images(documents, config.images.max_documents)
    if config.images.download:
        from headstart.curate.download import carry_images, fetch_images

        wanted = wanted_images(documents, config.images, frozenset(frequent["url"].to_pylist()))
        folder = answers.folder.parent / IMAGES
        if fetched_into := _fetched_into(before.sources):
            carry_images(fetched_into, folder, frozenset(wanted), say)
        _write(fetch_images(wanted, folder, config.images, say), answers.fetched)
    _write(frequent, answers.of("images"))


def _fetched_into(sources: Sequence[Source]) -> list[Path]:
    """Where the curations that the input comes from have their images."""
    one_of_each = {Path(source.address).parent: Path(source.address) for source in sources if "://" not in source.address}
    found = map(images_beside, one_of_each.values())
    return list(dict.fromkeys(folder for folder in found if folder is not None))


def _carry(fetched_into: Sequence[Path], out: Path, n_shards: int, form: str, say: Callable[[str], None]) -> None:
    """The images of the documents that are left, of those that the input came with."""
    from headstart.curate.download import carry_images

    files = [out / DOCUMENTS / shard_name(shard, form) for shard in range(n_shards)]
    wanted: set[str] = set()
    for lists in (lists for file in files if file.is_file() for lists in _image_lists(file)):
        wanted.update(pc.unique(pc.list_flatten(lists)).drop_null().to_pylist())
    carry_images(fetched_into, out / IMAGES, wanted, say)


def _image_lists(file: Path) -> Iterator[pa.Array]:
    """The addresses of a file's documents, in batches of lists: of Parquet that column alone is read. None where it holds pages."""
    if file.suffix != ".parquet":
        yield from (table["image_list"] for table in read_source(str(file), 0, ReadConfig()) if "image_list" in table.column_names)
        return
    with pq.ParquetFile(file) as parquet:
        for name in {"image_list", "images"}.intersection(parquet.schema_arrow.names):  # of the layouts
            yield from (batch[name] for batch in parquet.iter_batches(columns=[name]))


def _write(table: pa.Table, path: Path) -> None:
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")
