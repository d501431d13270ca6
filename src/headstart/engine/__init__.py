"""The trainer and what it is made of: the method contract, optimisers, schedules, precision, checkpoints, metrics, budgets, probes."""
