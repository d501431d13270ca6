"""Formats of the field: what others wrote loads here, what we write loads there."""
