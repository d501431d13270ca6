"""Answers kept as they come: whole lines stay, whatever ended the process."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

from headstart.core.journal import Journal, read_journal


def test_a_journal_loses_no_whole_line(tmp_path: Path) -> None:
    """A line that was cut off, longer than a block too; zeros that a power cut left; threads."""
    path = tmp_path / "journal.jsonl"
    assert list(read_journal(path)) == []
    for round_, torn in enumerate((b'{"n": 1', b'{"n": "' + b"x" * 200_000, b"")):
        with Journal(path) as journal:
            threads = [threading.Thread(target=journal.add, args=({"n": n, "round": round_},)) for n in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        with path.open("ab") as file:
            file.write(torn)
    assert Counter(record["round"] for record in read_journal(path)) == {0: 20, 1: 20, 2: 20}
    assert all(json.loads(line) for line in path.read_text().splitlines())
    path.write_bytes(b"\0" * 5000 + b'\n{"n": 1}\n[1]\n{"n": 2}')
    assert [record["n"] for record in read_journal(path)] == [1, 2]
