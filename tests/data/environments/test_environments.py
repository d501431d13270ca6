"""Environments keep their contract, and one that does not is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.core.rng import Rng
from headstart.data.environments.config import BUILTIN, EnvironmentConfig
from headstart.data.environments.contract import check
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import bit_modes, flipped_bits, near_modes, sparse
from headstart.data.environments.sequences import Bits, Dna, Peptides, Rna, Words
from headstart.data.environments.store import builtin, open_environment_store, prepare_environment

ROOT = Path(__file__).parents[3]
BASKETS = ROOT / "examples" / "baskets.py"
SMALL = [Grid(5), Grid(4, 3), Grid(4, 2, edge_ends=False), Bits(6, 2), Dna(3), Rna(4), Peptides(3), Words("ab", 5)]


@pytest.mark.parametrize("environment", SMALL, ids=lambda environment: environment.name)
def test_the_built_in_ones_pass_the_check_that_others_must(environment: Environment) -> None:
    check(environment)


@pytest.mark.parametrize("environment", [Grid(4), Grid(3, 3), Grid(4, 2, edge_ends=False), Dna(3), Peptides(2)])
def test_can_reach_is_exact(environment: Environment) -> None:
    """Against a walk through everything: what a state reaches is what its successors reach."""
    objects = environment.objects()
    known: dict[tuple[bytes, bool], Tensor] = {}

    def reached(state: Tensor, done: bool) -> Tensor:
        key = (state.numpy().tobytes(), done)
        if key not in known:
            if done:
                known[key] = (objects == state).all(-1)
            else:
                actions = environment.valid(state[None])[0].nonzero()[:, 0]
                after, ended = environment.step(state.expand(len(actions), -1), actions)
                known[key] = torch.stack([reached(one, bool(end)) for one, end in zip(after, ended, strict=True)]).any(0)
        return known[key]

    assert bool(reached(environment.start(1)[0], False).all()), "every listed object can be built"
    for (state, done), wanted in known.items():
        states = torch.frombuffer(bytearray(state), dtype=torch.int64).expand(len(objects), -1)
        found = environment.can_reach(states, torch.full((len(objects),), done), objects)
        assert torch.equal(found, wanted), (states[0].tolist(), done)


@pytest.mark.parametrize("environment", [Grid(4), Grid(4, 2, edge_ends=False), Dna(3), Peptides(3)])
def test_parents_are_those_that_step_here(environment: Environment) -> None:
    """Every parent's action leads back here, and the number of parents is that of all states that step here."""
    start = environment.start(1)
    level, seen = {(tuple(start[0].tolist()), False)}, {(tuple(start[0].tolist()), False): set()}
    while level:
        following = set()
        for state, done in level:
            if done:
                continue
            row = torch.tensor([state])
            for action in environment.valid(row)[0].nonzero()[:, 0].tolist():
                after, ended = environment.step(row, torch.tensor([action]))
                key = (tuple(after[0].tolist()), bool(ended))
                seen.setdefault(key, set()).add((state, action))
                following.add(key)
        level = following
    for (state, done), entered in seen.items():
        row, is_done = torch.tensor([state]), torch.tensor([done])
        parents = environment.parents(row, is_done)[0]
        assert set(parents.nonzero()[:, 0].tolist()) == {action for _, action in entered}
        for before, action in entered:
            assert tuple(environment.undo(row, is_done, torch.tensor([action]))[0].tolist()) == before


def test_a_grid_whose_edge_ends_never_has_two_edges() -> None:
    grid = Grid(8)
    assert "7,7" not in grid.to_text(grid.objects())
    assert (grid.n_objects, Grid(8, 2, edge_ends=False).n_objects) == (63, 64)
    on_edge, here = torch.tensor([[7, 2]]), torch.tensor([False])
    assert not bool(grid.can_reach(on_edge, here, on_edge)), "on the edge there is no state that is not done"
    assert not bool(grid.can_reach(grid.start(1), here, torch.tensor([[7, 7]])))
    _, done = grid.step(torch.tensor([[6, 3], [5, 3]]), torch.tensor([0, 0]))
    assert done.tolist() == [True, False]
    with pytest.raises(BadInput, match="7,7 cannot be reached"):
        grid.from_text(["7,7"])


def test_peptides_end_when_asked_or_when_full() -> None:
    peptides = Peptides(3)
    assert not bool(peptides.valid(peptides.start(1))[0, -1]), "an empty string is no object"
    states, done = peptides.step(peptides.from_text(["AC"]), torch.tensor([20]))
    assert (peptides.to_text(states), done.tolist()) == (["AC"], [True])
    assert peptides.step(peptides.from_text(["AC"]), torch.tensor([1]))[1].tolist() == [True]
    assert peptides.n_objects == 20 + 400 + 8000
    drawn = peptides.draw(Rng.at(0, 0, torch.arange(3000)).uniform("x", 4))
    lengths = torch.bincount(peptides.filled(drawn), minlength=4).float() / 3000
    assert lengths[0] == 0
    assert lengths[1:].tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
    mass = peptides.log_draw(peptides.objects()).double().exp().sum()
    assert float(mass) == pytest.approx(1.0, abs=1e-5)


def test_every_state_has_its_key() -> None:
    for environment in (Grid(3), Dna(2)):
        every = environment.every_state()
        assert environment.keys(every).tolist() == list(range(environment.n_states))
        assert environment.valid(every).shape == (environment.n_states, environment.n_actions)


def test_encodings_are_one_hot_in_order() -> None:
    assert Grid(3).encode(torch.tensor([[1, 2]])).tolist() == [[0, 1, 0, 0, 0, 1]]
    assert Words("ab", 2).encode(torch.tensor([[1, 2]])).tolist() == [[0, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [("ACGX", "'X' at letter 4 of 'ACGX'"), ("ACG", "has 3 letters, 4 are wanted"), ("ACGTA", "has 5 letters")],
)
def test_an_object_that_is_none_is_named(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Dna(4).from_text(["ACGT", text])


def test_letters_of_the_other_case_and_the_other_alphabet() -> None:
    assert Dna(4).to_text(Dna(4).from_text(["acgt"])) == ["ACGT"]
    with pytest.raises(BadInput, match="expected U"):
        Rna(4).from_text(["ACGT"])


# --- the check -----------------------------------------------------------------------------------------------------------------------------------


class Cyclic(Words):
    name = "cyclic"

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after, done = super().step(states, actions)
        return torch.where((actions == 0)[..., None], states, after), done & (actions != 0)


class Deaf(Words):
    name = "deaf"

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        return super().can_reach(states, done, outcomes) & (outcomes[..., 0] != 0)


class Loose(Words):
    name = "loose"

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        return (states[..., 0] == outcomes[..., 0]) | ~done


class InPlace(Words):
    name = "in-place"

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after, done = super().step(states, actions)
        states.copy_(after)
        return after, done


class Endless(Words):
    name = "endless"

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after, done = super().step(states, actions)
        return after, torch.zeros_like(done)


class Stuck(Words):
    name = "stuck"

    def valid(self, states: Tensor) -> Tensor:
        return super().valid(states) & (states[..., :1] != 1)


class OfTheBatch(Words):
    name = "of the batch"

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(states, actions.amax().expand_as(actions))


class Mumbling(Words):
    name = "mumbling"

    def to_text(self, objects: Tensor) -> list[str]:
        return [text[::-1] for text in super().to_text(objects)]


class WrongParents(Grid):
    name = "wrong parents"

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        return super().parents(states, done).roll(1, -1)


class ManyParents(Grid):
    name = "many parents"

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        return super().parents(states, done) | (states.sum(-1, keepdim=True) > 0)


class BeforeTheStart(Grid):
    name = "before the start"

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        return super().parents(states, done) | (states.sum(-1, keepdim=True) == 0)


class Bag(Words):
    """The order of the letters is lost, so that states have several ways to them; `tree` says they have one."""

    name = "bag"

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after, done = super().step(states, actions)
        return after.sort(-1).values, done

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        held = [(states == letter).sum(-1) <= (outcomes == letter).sum(-1) for letter in range(len(self.letters))]
        return torch.stack(torch.broadcast_tensors(*held)).all(0)

    def draw(self, numbers: Tensor) -> Tensor:
        return super().draw(numbers).sort(-1).values


class Hopeful(Words):
    name = "hopeful"

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        return (states == outcomes).all(-1) | ~done


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Cyclic("ab", 4), "has a cycle: a state came twice. The state: "),
        (Deaf("ab", 4), "cannot reach the object that came of it"),
        (Loose("ab", 4), "an object reaches another one"),
        (InPlace("ab", 4), "changes the states"),
        (Endless("ab", 4), "(no object after 4 steps)|(came twice)"),
        (Stuck("ab", 4), "allows no action"),
        (OfTheBatch("ab", 4), "steps one state otherwise"),
        (Mumbling("ab", 4), "does not read back"),
        (WrongParents(4), "among the parents"),
        (ManyParents(4), "names a parent whose step leads elsewhere"),
        (BeforeTheStart(4), "names a parent of its start"),
        (Bag("ab", 4), "has two ways to a state, and says that it is a tree"),
        (Hopeful("ab", 4), "says otherwise of a state than of what follows it"),
    ],
    ids=lambda value: value.name if isinstance(value, Environment) else "",
)
def test_a_broken_environment_is_refused_by_name_and_state(broken: Environment, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        check(broken)
    assert str(error.value).startswith(f"The environment {broken.name} ")


# --- the store -----------------------------------------------------------------------------------------------------------------------------------


def test_every_built_in_environment_makes_a_store(tmp_path: Path) -> None:
    for name in BUILTIN:
        store = prepare_environment([f"builtin:{name}"], tmp_path / name, EnvironmentConfig())
        again = open_environment_store(tmp_path / name)
        assert again.environment.describe() == store.environment.describe()
        assert again.manifest == store.manifest
    with pytest.raises(UsageError, match=r"no environment 'hypergird'.*\n.*hypergrid"):
        builtin("hypergird")


def test_a_store_of_another_environment_is_not_overwritten(tmp_path: Path) -> None:
    prepare_environment(["builtin:tfbind8"], tmp_path / "store", EnvironmentConfig())
    with pytest.raises(OtherStore):
        prepare_environment(["builtin:tfbind8"], tmp_path / "store", EnvironmentConfig(length=4))


def test_an_environment_of_ones_own_is_read_from_its_file_while_that_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BASKETS.read_text())
    store = prepare_environment([file], tmp_path / "store", EnvironmentConfig())
    assert store.environment.name == "baskets"
    assert open_environment_store(tmp_path / "store").environment.n_objects == 56
    file.write_text(BASKETS.read_text() + "\n")
    with pytest.raises(BadInput, match="has changed since the store"):
        open_environment_store(tmp_path / "store")


def test_a_file_in_the_store_is_never_executed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    file = tmp_path / "store" / "mine.py"
    file.write_text(BASKETS.read_text())
    prepare_environment([file], tmp_path / "store", EnvironmentConfig())
    with pytest.raises(BadInput, match="never executed"):
        open_environment_store(tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "has 0 environments"), ("raise OSError('no disk')", "cannot be run"), ("x = (", "cannot be run")],
)
def test_a_file_without_an_environment_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput, match=says):
        prepare_environment([tmp_path / "mine.py"], tmp_path / "store", EnvironmentConfig())


def test_what_is_no_environment_is_refused_before_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("sequence,value\nACGT,1\n")
    for entry in (tmp_path, tmp_path / "scores.csv", tmp_path / "missing.py"):
        with pytest.raises(BadInput, match="is no environment"):
            prepare_environment([entry], tmp_path / "store", EnvironmentConfig())


# --- rewards of the papers -----------------------------------------------------------------------------------------------------------------------


def test_modes_of_bits_are_motifs_and_all_different() -> None:
    bits = Bits(16, 4)
    modes = bit_modes(bits, n_modes=20)
    assert modes.shape == (20, 16)
    assert len({tuple(mode) for mode in modes.tolist()}) == 20
    motifs = {"00000000", "11111111", "11110000", "00001111", "00111100"}
    assert {"".join(map(str, mode[at : at + 8])) for mode in modes.tolist() for at in (0, 8)} <= motifs
    reward = near_modes(bits, modes)
    texts = ["".join(map(str, mode)) for mode in modes.tolist()]
    assert reward(bits.from_text(texts)).tolist() == pytest.approx([1.0] * 20)
    off_by_one = texts[0][:-1] + str(1 - int(texts[0][-1]))
    assert float(reward(bits.from_text([off_by_one]))) == pytest.approx(0.716531, rel=1e-5)
    flipped = (flipped_bits(modes) != modes).sum(1)
    assert 0 <= int(flipped.min()) < int(flipped.max()) <= 15


def test_impossible_modes_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match="12 bits cannot be made of motifs of 8"):
        bit_modes(Bits(12, 4))
    with pytest.raises(UsageError, match="60 modes are wanted, 2 motifs in a row give only 25"):
        bit_modes(Bits(16, 4), 60)
    with pytest.raises(UsageError, match="10 bits in words of 4"):
        Bits(10, 4)


def test_the_sparse_reward_has_three_cells() -> None:
    grid = Grid(8)
    r = sparse(grid)(grid.objects())
    assert sorted(grid.to_text(grid.objects()[r > 0])) == ["1,6", "6,1", "6,6"]


@pytest.mark.slow
def test_the_reward_of_peptides_tells_held_out_ones_apart() -> None:
    """Trained on modlamp's tables; the figure of the docs page comes from here."""
    pytest.importorskip("modlamp", reason="brings a dozen packages for two tables: pip install 'headstart[design]'")
    from headstart.data.environments.amp import AmpReward, read_peptides

    peptides = Peptides()
    known = read_peptides(peptides)
    assert len({peptide.sequence for peptide in known}) == len(known) > 3000
    assert max(len(peptide.sequence) for peptide in known) <= 50
    reward = AmpReward(peptides, known)
    assert reward.tested_on == len(known) // 5
    assert reward.auc > 0.85
    r = reward(peptides.from_text(["GIGKFLHSAKKFGKAFVGEIMNS", "MSTNPKPQRKTKRNTNRRPQDVK"]))
    assert 0 <= float(r.min()) <= float(r.max()) <= 1
    assert not any(parameter.requires_grad for parameter in reward.parameters())


def test_the_area_under_the_curve_counts_pairs() -> None:
    from headstart.data.environments.amp import auc

    assert auc(torch.tensor([0.9, 0.2, 0.5, 0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0])) == pytest.approx(3.5 / 4)
