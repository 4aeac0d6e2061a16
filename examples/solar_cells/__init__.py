"""Parts of the demonstration on solar cells, `examples/solar.py`."""
