"""Downstream procedures, shared by all methods."""
