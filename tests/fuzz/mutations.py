"""Damage, as strategies of hypothesis: to bytes, and to JSON values with their structure kept."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]

HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 2**16, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"),
    "", "x", "0", "../x", "/etc/passwd", "/dev/zero", "nul\0", "half \ud800", "\x1b[2J", "<script>", "x" * 5000, [], {}, [[]], ["x"], {"x": {}}, DEEP,
]  # fmt: skip
"""Values that a reader may not expect."""
INSERTED = [b"\0", b"\xff\xfe", b'"', b"[", b"{", b"\n", b",", b"\x1b[2J", b"\xed\xa0\x80"]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after one to four of: a changed bit, a cut end, a part left out, doubled or overwritten, and inserted bytes."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 8, 64]))
        match draw(st.sampled_from(["bit", "cut", "out", "double", "over", "insert"])):
            case "bit" if data:
                data = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
            case "cut":
                data = data[:place]
            case "out":
                data = data[:place] + data[place + length :]
            case "double":
                data = data[:place] + data[place : place + length] * draw(st.sampled_from([2, 50])) + data[place + length :]
            case "over":
                data = data[:place] + draw(st.sampled_from([b"\xff", b"\0", b"\x7f"])) * length + data[place + length :]
            case _:
                data = data[:place] + draw(st.sampled_from(INSERTED)) + data[place:]
    return data


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> bytes:
    """JSON text of `value` with one or two entries replaced by a hostile one, removed, doubled under another name, or exchanged."""
    holder = {"root": copy.deepcopy(value)}
    for _ in range(draw(st.integers(1, 2))):
        places = _places(holder)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "exchange"])):
            case "replace":
                parent[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "remove" if parent is not holder:
                del parent[key]
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["../x", "", "x", "train", "__class__"]))] = copy.deepcopy(parent[key])
            case _:
                other, its = places[draw(st.integers(0, len(places) - 1))]
                parent[key] = copy.deepcopy(other[its])
    return json.dumps(holder["root"]).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(parent, key) of every entry. Of long lists and dictionaries (a vocabulary) only the first and last few: the rest is more of the same."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys if len(keys) <= 40 else keys[:4] + keys[-4:]:
            found.append((value, key))
            found += _places(value[key])
    return found
