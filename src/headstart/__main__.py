"""`python -m headstart` is the command line, so that `torchrun -m headstart ...` works."""

import sys

from headstart.cli.main import main

sys.exit(main())
