"""Names of devices as a person writes them. No torch here: a wrong name is refused before torch is loaded; whether the device is there, only torch
knows (`engine.device`)."""

from __future__ import annotations

import re

from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
_NAME = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d{1,3})?")


def check_device(name: str | None, flag: str = "--device") -> None:
    """Raises UsageError for a name that no device has; None: nobody named one."""
    if name is not None and not _NAME.fullmatch(name):
        closest = "Did you mean cuda? " if name.lower() in ("gpu", "nvidia") else did_you_mean(name, DEVICES)
        mend = f"{closest}Give auto, cpu or cuda; where there are several GPUs cuda:0, cuda:1 and so on."
        raise UsageError(f"There is no device '{name}' ({flag}).", mend)
