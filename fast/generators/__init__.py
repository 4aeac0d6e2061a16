"""Every method that makes image-mask pairs behind one interface: `create(name, **options)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fast.runtime.options import did_you_mean
from ldm.errors import UserError
from ldm.util import check_params, check_values

if TYPE_CHECKING:  # a program's --help does not wait for numpy
    from fast.generators.base import Generator

METHODS = {
    "fast": "fast.generators.latent.FASTGenerator",
    "stage": "fast.generators.latent.STAGEGenerator",
    "anomalydiffusion": "fast.generators.latent.AnomalyDiffusionGenerator",
    "dfmgan": "fast.generators.dfmgan.DFMGANGenerator",
    "realnet": "fast.generators.realnet.RealNetGenerator",
    "glass": "fast.generators.glass.GLASS",
    "draem": "fast.generators.draem.DRAEM",
    "cutpaste": "fast.generators.cutpaste.CutPaste",
    "procedural": "fast.generators.procedural.Procedural",
    "transplant": "fast.generators.transplant.Transplant",
}
LATENT = ("fast", "stage", "anomalydiffusion")  # stand on a latent-diffusion base
FREE = ("glass", "draem", "cutpaste", "procedural", "transplant")  # train no weights


def require_method(name: str) -> None:
    """UserError where no method has this name."""
    if name not in METHODS:
        raise UserError(f"method {name!r} is unknown{did_you_mean(name, METHODS)}; use one of {', '.join(METHODS)}")


def arguments_of(name: str) -> type[Generator]:
    """A class whose constructor takes what the method's takes; of methods on a latent base one that is imported without
    torch. Raises `UserError`."""
    if name not in LATENT:
        return method_class(name)
    from fast.generators.on_base import OnBase

    return OnBase


def method_class(name: str) -> type[Generator]:
    """The class behind a method's name. Raises `UserError`."""
    require_method(name)
    module, _, attribute = METHODS[name].rpartition(".")
    found: type[Generator] = getattr(import_module(module), attribute)
    return found


def create(name: str, **options: Any) -> Generator:
    """A generator by name, one of `METHODS`.

    `options` are the method's own; those that learn take `weights`, a run's folder, or learn with `fit`.
    Raises `UserError` for an unknown name or option.
    """
    method = method_class(name)
    check_params(method, options, f"method {name}")
    check_values(method, options, "method")
    return method(**options)
