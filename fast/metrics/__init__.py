"""Figures of how good something is, from plain arrays."""
