"""Masks of defects to be made: from files or shapes, placed on the object."""
