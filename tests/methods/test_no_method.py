"""What has code and a card, and is no method that could be pre-trained."""

from __future__ import annotations

import pytest

from headstart import methods
from headstart.core.errors import UsageError


@pytest.mark.parametrize(
    ("slug", "what"),
    [
        ("spdf", "'spdf' is no method of its own: it changes how one trains"),
        ("dcpt_law", "'dcpt_law' trains nothing: it is a way of planning"),
        ("webmath", "'webmath' trains nothing: it makes a corpus"),
        ("bprop", "'bprop' has a card but no code yet"),
    ],
)
def test_it_is_refused_with_what_it_is(slug: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        methods.settings(slug)
