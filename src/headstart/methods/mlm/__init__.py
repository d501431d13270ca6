"""mlm: masked language modelling. See docs/methods/mlm.md."""
