"""oc_gfn: outcome-conditioned generative flow networks (arXiv 2310.03419). See docs/methods/oc_gfn.md."""
