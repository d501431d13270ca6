"""Freezing of layers and how far layers move, from the stability gap's paper. See docs/methods/stability_gap.md."""
