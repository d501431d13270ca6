"""ELECTRA: replaced-token detection (arXiv 2003.10555). See docs/methods/electra.md."""

from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.method import Electra

METHOD = Electra

__all__ = ["METHOD", "Electra", "ElectraConfig"]
