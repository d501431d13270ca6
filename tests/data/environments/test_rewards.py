"""Every way in which a person can name a reward, and what is said of one that is none."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.core.errors import BadInput, UsageError
from headstart.data.environments.amp import FILES, read_peptides
from headstart.data.environments.config import REWARDS, reward_file
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import bit_modes, canonical_words, corners, near_modes, read_targets, sparse
from headstart.data.environments.rewards import Described, read_reward
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Bits, Dna, Peptides, Rna
from tests.running import lacks


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("score.py:score", "score.py"),
        ("a/scores.npz:SIX6", "a/scores.npz"),
        ("scores.csv", "scores.csv"),
        ("builtin:rna:targets.tsv", "targets.tsv"),
        ("builtin:corners", None),
    ],
)
def test_the_file_of_a_reward_is_known_before_it_is_read(spec: str, file: str | None) -> None:
    assert reward_file(spec) == (None if file is None else Path(file))


def test_rewards_of_the_papers_tasks_have_names() -> None:
    grid, bits = Grid(8), Bits(24, 4)
    for name, environment, reward in (
        ("corners", grid, corners(grid)),
        ("sparse", grid, sparse(grid)),
        ("modes", bits, near_modes(bits, bit_modes(bits))),
    ):
        found = read_reward(f"builtin:{name}", environment)
        objects = environment.draw(torch.rand(50, environment.state_size + 1, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(found(objects), reward(objects))
        assert isinstance(found, Described)
        assert REWARDS[name][1] in found.words


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_reward_of_other_objects_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"scores objects of builtin:{REWARDS[name][0]}, the sampler builds tfbind8"):
        read_reward(f"builtin:{name}", Dna())


def test_an_unknown_reward_and_a_missing_target_are_told_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"(?s)no reward 'corner'.*Did you mean corners\? There are: corners, sparse, modes, rna, amp"):
        read_reward("builtin:corner", Grid(8))
    with pytest.raises(UsageError, match=r"Give builtin:rna:TARGETS\.tsv"):
        read_reward("builtin:rna", Rna())
    with pytest.raises(BadInput, match=r"(?s)nowhere\.npz: does not exist.*Give FILE\.py:FUNCTION, .*FILE\.npz:NAME"):
        read_reward("nowhere.npz:SIX6", Dna())


def test_a_factor_of_a_file_like_that_of_tf_bind_8(tmp_path: Path) -> None:
    """Scores of 32,896 words: the number of the word, up to its reverse complement."""
    words = np.unique(canonical_words())
    np.savez(tmp_path / "scores.npz", names=np.array(["UP", "DOWN"]), escore_e5=np.stack([words, -words]))
    spec = f"{tmp_path / 'scores.npz'}:UP"
    reward = read_reward(spec, Dna())
    y = float(np.uint32(int("23", 4))) / float(words.max())  # AAAAAAGT, below its reverse complement
    assert reward(Dna().from_text(["AAAAAAGT", "ACTTTTTT", "AAAAAAAA"])).tolist() == pytest.approx([max(y**3, 1e-3)] * 2 + [1e-3])
    with pytest.raises(BadInput, match=r"(?s)has no scores of 'DOWM'.*Did you mean DOWN\? It has: UP, DOWN"):
        read_reward(spec.replace(":UP", ":DOWM"), Dna())
    with pytest.raises(UsageError, match="scores DNA of 8 letters, the sampler builds rna"):
        read_reward(spec, Rna(8))


def write_peptides(folder: Path, each: int) -> None:
    """modlamp's two tables, made up: those with many lysines are antimicrobial."""
    random = np.random.default_rng(0)
    rows = [("".join(random.choice(list("KRLG" if label else "DEST"), 10)), label) for label in (1, 0) for _ in range(each)]
    for file, part in zip(FILES, (rows[::2], rows[1::2]), strict=True):
        (folder / file).write_text(f"{len(part)},1,made up,AMP\n" + "".join(f"{sequence}, {label}\n" for sequence, label in part))


def test_peptides_are_scored_by_a_network_that_says_how_well_it_tells_others_apart(tmp_path: Path) -> None:
    write_peptides(tmp_path, 60)
    peptides = Peptides(12)
    reward = read_reward(f"builtin:amp:{tmp_path}", peptides)
    assert isinstance(reward, Described)
    assert "96 known peptides (AUC 1.000 on 24 others); the paper's own data (DBAASP) is not available offline." in reward.words
    yes, no = reward(peptides.from_text(["KRLGKRLGKR", "DESTDESTDE"])).tolist()
    assert 0 <= no < 0.5 < yes <= 1


def test_tables_of_peptides_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"AMPvsUniProt\.csv: is not that table"):
        read_peptides(Peptides(12), tmp_path)
    write_peptides(tmp_path, 60)
    with pytest.raises(BadInput, match="hardly a peptide of at most 5 letters"):
        read_peptides(Peptides(5), tmp_path)


def test_targets_of_rna_have_names_and_letters(tmp_path: Path) -> None:
    file = tmp_path / "targets.tsv"
    file.write_text("name\tsequence\none\tACGUacgu\n")
    assert read_targets(file) == {"one": "ACGUACGU"}
    for rows, says in (
        ("one\tACGT\n", "record 1: is no target"),
        ("one\tACGU\none\tACG\n", "record 2: is no target"),
        ("one\n", "record 1: is no target"),
        ("", "holds no targets"),
    ):
        file.write_text(f"name\tsequence\n{rows}")
        with pytest.raises(BadInput, match=says):
            read_targets(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_targets(tmp_path)


def test_binding_to_targets_is_a_reward_of_rna(tmp_path: Path) -> None:
    if find_spec("RNA") is None:
        lacks("needs viennarna: pip install 'headstart[design]'")
    (tmp_path / "targets.tsv").write_text("name\tsequence\none\tAUGGGCCGGACCCC\n")
    reward = read_reward(f"builtin:rna:{tmp_path / 'targets.tsv'}", Rna())
    assert isinstance(reward, Described)
    assert "binding to one" in reward.words
    best, none = reward(Rna().from_text(["GGGGUCCGGCCCAU", "AAAAAAAAAAAAAA"])).tolist()
    assert (best, none) == (pytest.approx(1.0), 0.0)


def test_objects_in_small_letters_are_read_as_capitals_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def read(environment: Environment, *texts: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "headstart"):
            environment.from_text(texts)
        return caplog.text

    assert "1 of 2 objects are in small letters and read as capitals, the first: record 2" in read(Dna(4), "ACGT", "acgt")
    assert read(Dna(4), "ACGT") == ""
    assert read(Bits(4, 2), "0101") == ""


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("cut.parquet", b"PAR1 and no more", r"cut\.parquet, record 1: is no readable parquet file"),
        ("a.csv", b"sequence;value\nAAAAAAAA;1\n", r"record 2: has no sequence .*\nIts columns seem to be separated by ';'"),
        ("a.csv", b"sequence,value\nAAAAAAAA,1\n\nAAAAXAAA,1\n", r"a\.csv, record 4: 'X' at letter 5"),
        ("a.csv", b"sequence,value\nAAAAAAAA,1,5\n", r"record 2: has 3 columns, the header 2"),
        ("a.csv", "sequence,value\nAAAAAAAA,1\n".encode("utf-16"), r"a\.csv: is UTF-16"),
        ("a.py", b"raise SystemExit(3)\n", r"a\.py: cannot be run \(SystemExit: 3\)"),
    ],
    ids=["parquet", "delimiter", "letter", "columns", "utf-16", "exit"],
)
def test_a_file_of_rewards_that_is_none_is_named_with_its_record(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    """A parquet file that was cut off was called a bug of ours; a script that ends the program ended it without a word."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=says):
        read_reward(f"{tmp_path / name}{':score' if name == 'a.py' else ''}", Dna())


def test_a_function_that_is_not_there_is_told_which_are(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text("import math\n\ndef score(words):\n    raise SystemExit(3)\n\ndef large(words):\n    return [1e300] * len(words)\n")
    with pytest.raises(BadInput, match=r"has no function 'scor'\.\nDid you mean score\? Give .*rewards\.py:FUNCTION\. It has: score, large\."):
        read_reward(f"{file}:scor", Dna())
    with pytest.raises(BadInput, match=r"is given without one of its functions\.\nGive .*rewards\.py:FUNCTION\. It has: score, large\."):
        read_reward(str(file), Dna())
    objects = Dna().from_text(["AAAAAAAA", "CCCCCCCC"])
    for name, says in (("score", "ended with SystemExit: 3"), ("large", r"AAAAAAAA is 1e\+300, more than a float32 holds")):
        with pytest.raises(BadInput, match=says):
            Scores(Dna(), read_reward(f"{file}:{name}", Dna()))(objects)
