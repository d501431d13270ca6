"""What `tools/fill_docs.py` writes into the documentation: one module a kind of block. Nobody types a figure, a flag or a line number."""
