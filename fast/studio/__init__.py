"""A local web page to make pairs one at a time, and to judge those of a finished run."""
