"""Environments: what a generative flow network builds its objects in, step by step. `environment.py` holds the contract."""
