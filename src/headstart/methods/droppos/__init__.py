"""droppos: the places of patches as the target (arXiv 2309.03576). See docs/methods/droppos.md."""
