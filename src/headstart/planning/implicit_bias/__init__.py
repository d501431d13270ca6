"""implicit_bias: which of several models of equal loss to take (arXiv 2210.14199). See docs/methods/implicit_bias.md."""

from headstart.planning.implicit_bias.choose import Candidate, Choice, choose, equal_loss

__all__ = ["Candidate", "Choice", "choose", "equal_loss"]
