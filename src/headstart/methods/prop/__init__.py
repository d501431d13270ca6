"""prop: a re-ranker that learns which of two small sets of words stands for a document. See docs/methods/prop.md."""
