"""Work of an event loop, from code that has none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """What the work gives in the end, also where an event loop runs already (a notebook has one): there it is done in a thread of its own. Ctrl-C
    cancels it in both."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: list[asyncio.Task[Any]] = []

    async def known() -> T:
        task = asyncio.current_task()
        assert task is not None
        begun.append(task)
        return await work

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(asyncio.run, known())
        try:
            return future.result()
        except BaseException:
            if begun:
                with contextlib.suppress(RuntimeError):  # it has ended
                    begun[0].get_loop().call_soon_threadsafe(begun[0].cancel)
            raise
