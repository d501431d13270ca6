"""causal-lm: next-token prediction. See docs/methods/causal-lm.md."""
