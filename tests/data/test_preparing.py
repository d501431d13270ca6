"""What the preparations of all kinds of store have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.data.preparing import begin_work


def test_what_is_of_no_use_without_a_plan_goes_before_it(tmp_path: Path) -> None:
    """Whatever ends the process between the two, a preparation with another plan does not find images of the plan before: here a link, which is not
    removed."""
    (tmp_path / "images").mkdir()
    begin_work(tmp_path / "elsewhere", {"size": 32})
    (tmp_path / "work").symlink_to(tmp_path / "elsewhere")
    begin_work(tmp_path / "work", {"size": 32}, [tmp_path / "images"])
    assert (tmp_path / "images").exists(), "the same plan goes on"
    with pytest.raises(OSError, match="symbolic link"):
        begin_work(tmp_path / "work", {"size": 64}, [tmp_path / "images"])
    assert not (tmp_path / "images").exists()


def test_what_was_begun_of_other_files_or_settings_begins_anew_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = {"preparation": {"size": 32, "fit": "crop"}, "inputs": "3f", "format_version": 1}
    begin_work(tmp_path / ".work", plan)
    (tmp_path / ".work" / "part").touch()
    begin_work(tmp_path / ".work", plan)
    assert (tmp_path / ".work" / "part").exists()
    assert caplog.text == ""
    begin_work(tmp_path / ".work", plan | {"preparation": {"size": 64, "fit": "crop"}, "inputs": "a0"})
    assert not (tmp_path / ".work" / "part").exists()
    assert f"what was begun in {tmp_path} is of another preparation (other inputs; size 32 -> 64): it begins anew" in caplog.text
