"""The bench: does synthesis help a segmenter, and whose helps most."""
