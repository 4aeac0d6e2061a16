"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ldm.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str, flag: str) -> torch.device:
    """The device that `name` asks for: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    `flag`: what the user gave, with its sign, as `--device ` or `device=`, for the message. Raises `UserError` for a
    name that is none of these and for a GPU where there is none.
    """
    import torch  # seconds that a --help must not take

    here = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if here else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"{flag}{name} is unknown; use cpu or cuda") from None
    if device.type == "cuda" and not here:
        raise no_gpu(flag, name)
    settle_attention()
    return device


def settle_attention() -> None:
    """Keep cuDNN's attention out of PyTorch's choice of kernels.

    On Hopper cards its backward pass may give NaN for some lengths (64 beyond a multiple of 128), which a U-Net's inner
    blocks have; adaptations ended there in NaN, and this is the suspected cause. PyTorch's other kernels take over.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def no_gpu(flag: str, name: str) -> UserError:
    """The error for a device that is not there, `flag` as in `pick_device`."""
    return UserError(f"{flag}{name}: there is no GPU here; use {flag}cpu")
