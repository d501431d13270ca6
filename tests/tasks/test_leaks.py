"""Test records in the training data."""

from headstart.tasks.leaks import find_overlap, normalise


def test_exact_and_normalised_duplicates() -> None:
    train = ["A fine film.", "dull", "unrelated"]
    found = find_overlap(["A fine film.", "a fine  FILM!", "Dull?", "new", "fine"], iter(train))
    assert (found.n_test, found.exact, found.normalised, found.examples) == (5, 1, 3, [1, 2, 3])
    assert found.sentence("the training file") == "3 of 5 test records (60.0 %) stand in the training file, 1 of them exactly: records 1, 2, 3."


def test_no_overlap_is_said() -> None:
    assert find_overlap(["a"], ["b"]).sentence("the corpus") == "None of the 1 test records stands in the corpus."


def test_texts_without_letters_match_only_exactly() -> None:
    assert find_overlap(["!!!"], ["???"]).normalised == 0
    assert find_overlap(["!!!"], ["!!!"]).normalised == 1


def test_only_the_first_examples_are_named() -> None:
    found = find_overlap([str(i) for i in range(9)], [str(i) for i in range(9)])
    assert found.examples == [1, 2, 3, 4, 5]
    assert "records 1, 2, 3, 4, 5 ..." in found.sentence("x")


def test_normalise() -> None:
    assert normalise("  The_Mill—(old): STRASSE ") == "the mill old strasse"
