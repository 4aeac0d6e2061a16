"""Where to compute, and the one answer where that is not there."""

import pytest
import torch

from fast.runtime.device import pick_device
from fast.runtime.options import TrainingOptions
from fast.training.trainer import devices
from ldm.errors import UserError


@pytest.mark.parametrize("here", [True, False])
def test_auto_is_a_gpu_where_there_is_one(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    assert pick_device("auto", "--device ").type == ("cuda" if here else "cpu")
    assert pick_device("cpu", "--device ").type == "cpu"


@pytest.mark.parametrize(
    ("name", "flag", "said"),
    [
        ("cuda", "--device ", "--device cuda: there is no GPU here; use --device cpu"),
        ("cuda:1", "device=", "device=cuda:1: there is no GPU here; use device=cpu"),
        ("gpu", "device=", "device=gpu is unknown; use cpu or cuda"),
    ],
)
def test_what_is_not_there_is_said(name: str, flag: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as error:
        pick_device(name, flag)
    assert str(error.value) == said


def test_cudnn_attention_is_left_out_for_its_gradients_can_be_nan() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        pick_device("cpu", "--device ")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(True)
        devices(TrainingOptions(), {})
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
