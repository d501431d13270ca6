"""interleaved-lm: a causal language model that reads documents of texts and images. See docs/methods/webmath.md."""
