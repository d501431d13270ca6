"""spdf: sparse pre-training, dense fine-tuning (Thangarasa et al. 2023, arXiv 2303.10464). See docs/methods/spdf.md."""
