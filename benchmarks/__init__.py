"""Speed and memory of FAST beside the original's way of computing and beside diffusers: `python -m benchmarks`.

`cases/` measures one thing in a process of its own, `sections/` says which cases a table needs and writes it.
`base_scores/` measures the shipped base (`scripts/evaluate_base.py`, `scripts/base_sheet.py`).
"""
