"""self_distill: self-distillation for further pre-training (arXiv 2210.02871). See docs/methods/self_distill.md."""
