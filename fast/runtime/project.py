"""Files that come with the project, in a checkout or inside an installed package: recipes, protocols, weights."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = Path(__file__).resolve().parents[1] / "shipped"  # of a wheel; see setup.py
NAMED = {"mini": "models/mini"}  # shipped weights that are called by a name


def in_project(path: Path) -> Path:
    """A relative path that is not there from here, as seen from the project's folder, or from what an installed package
    brings of it: recipes name its files so."""
    places = (path, SHIPPED / path, PROJECT / path)
    return next((place for place in places if place.exists()), path)


def of_project(name: str) -> Path:
    """A file or folder of the project, whatever lies under that name in the current folder."""
    shipped = SHIPPED / name
    return shipped if shipped.exists() else PROJECT / name


def named(weights: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Where shipped weights lie, given by their name, the string `mini`, whatever folder of that name there is:
    `./mini`, or a `Path`, means the folder. All else comes back as it is."""
    if not isinstance(weights, str) or weights not in NAMED:
        return weights
    place = of_project(NAMED[weights])
    # As one would write it from here, so that what records it does not depend on where the project lies.
    return NAMED[weights] if Path(NAMED[weights]).resolve() == place else str(place)
