"""Collections that are searched: words, BM25, documents and queries with their relevance (TREC files)."""
