"""`python -m headstart` is the command line, so that `torchrun -m headstart ...` works."""

import gc
import os
import signal
import sys

from headstart.cli.main import main


def run() -> int:
    """The command line as a program: once everything is said, a late signal must not turn a clean end into a kill."""
    code = main()
    gc.freeze()  # else Python looks for cycles in all of torch and transformers once more: 1.2 s of CPU after the last word
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if "daft" in sys.modules:  # its native threads may still run, and one that asks for Python while that ends aborts the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
