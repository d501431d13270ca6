"""The networks that are kept for downstream use, with the field's parameter names."""
