"""electra: replaced-token detection (arXiv 2003.10555). See docs/methods/electra.md."""
