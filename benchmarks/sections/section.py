"""What the sections have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.runner import Job, Result, Setting

Results = Mapping[str, Result]


@dataclass(frozen=True)
class Section:
    """`jobs`: what to measure, by label; `text`: Markdown from the results by label."""

    jobs: Callable[[Setting], dict[str, Job]]
    text: Callable[[Results, Setting], str]


def value(results: Results, label: str, name: str = "seconds") -> Any:
    """A figure of a result; None where it is missing."""
    return results.get(label, {}).get(name)


def missing(results: Results) -> str:
    """A line for each case that gave no figure."""
    return "\n".join(f"- {label}: {r['missing']}" for label, r in results.items() if "missing" in r)


def paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
