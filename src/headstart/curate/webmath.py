"""The recipe of InfiMM-WebMath-40B (arXiv 2409.12568): from crawled pages to documents on mathematics, LaTeX intact and images in place."""

from __future__ import annotations

STAGES = (
    "prefilter", "language", "extract", "recall", "signatures", "near-duplicates", "urls", "rules", "private", "precision", "decontaminate", "images",
    "galleries",
)  # fmt: skip
"""In the paper's order. `private` and `decontaminate`, of which it does not speak, do nothing unless they are asked for; `galleries` is what training
asks for, and `--images.galleries keep` leaves it out."""
