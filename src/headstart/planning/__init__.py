"""Planning: what is worked out before a long run, on a CPU, from figures of short ones. One package per paper, found by its
folder; nothing lists them.

NumPy and SciPy alone: a plan is made on a laptop, and `headstart fit` answers without torch.
"""
