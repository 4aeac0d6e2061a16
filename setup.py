"""Puts recipes, protocols and the shipped weights into the wheel; all else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "protocols", "models")


class BuildWithShipped(build_py):
    """Copies the folders of `SHIPPED` to `fast/shipped`, where `fast.runtime.project` looks for them."""

    def run(self) -> None:
        super().run()
        for name in SHIPPED:
            target = Path(self.build_lib) / "fast" / "shipped" / name
            shutil.copytree(Path(__file__).parent / name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShipped})
