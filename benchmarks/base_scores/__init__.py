"""What `evaluate_base.py` measures, in sections."""
