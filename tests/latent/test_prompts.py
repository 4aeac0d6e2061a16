"""Prompts: words, learned vectors in their places, and where gradients go."""

import pytest
import torch

from fast.data.words import prompt_text
from fast.latent.prompts import LearnedPrompts
from fast.model import FAST
from ldm.errors import UserError
from support.tiny import TYPES


@pytest.mark.parametrize(
    ("category", "anomaly", "text"),
    [
        ("bottle", "broken_large", "bottle broken large"),
        ("metal_nut", "bent", "metal nut bent"),
        ("01", "damaged", "damaged"),
        ("03", "2", "damaged"),
        ("Pill", "pill_type-1", "pill pill type 1"),
        ("wood", "scratch+hole", "wood scratch hole"),
    ],
)
def test_words(category: str, anomaly: str, text: str) -> None:
    assert prompt_text(category, anomaly) == text


def test_learned_vectors_stand_right_after_the_words(tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, prompts = tiny_fast.cond_stage_model, tiny_fast.prompts
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(encoder, "encode_embeddings", lambda e: seen.append(e) or e)
    index = TYPES.index("wood/scratch")
    prompts(encoder, torch.tensor([index]))
    words = encoder.tokenizer.pieces("wood scratch")
    ids = [encoder.start_id, *words, *[encoder.pad_id] * 8, encoder.end_id]
    ids += [encoder.pad_id] * (encoder.max_length - len(ids))
    expected = encoder.token_embedding(torch.tensor(ids)).detach().clone()
    at = 1 + len(words)
    expected[at : at + 8] = prompts.vectors[index].detach()
    assert prompts.vectors.shape == (len(TYPES), 8, encoder.width)
    torch.testing.assert_close(seen[0][0].detach(), expected, rtol=0, atol=0)


def test_without_training_the_encoding_is_the_text_encoder_s_own(tiny_fast: FAST) -> None:
    """Vectors set to the pad token's embedding give what the encoder makes of the ids themselves."""
    encoder, prompts = tiny_fast.cond_stage_model, tiny_fast.prompts
    with torch.no_grad():
        prompts.vectors[:] = encoder.token_embedding(torch.tensor(encoder.pad_id))
    words = encoder.tokenizer.pieces(prompts.text(0))
    ids = torch.tensor([encoder.tokenizer.frame([*words, *[encoder.pad_id] * 8])])
    torch.testing.assert_close(prompts(encoder, torch.tensor([0])), encoder(ids))


def test_vectors_start_from_the_word_given(tiny_fast: FAST) -> None:
    encoder, prompts = tiny_fast.cond_stage_model, tiny_fast.prompts
    prompts.start_from(encoder, "scratch")
    mean = encoder.token_embedding(torch.tensor(encoder.tokenizer.pieces("scratch"))).mean(dim=0)
    torch.testing.assert_close(prompts.vectors, mean.expand_as(prompts.vectors))
    prompts.start_from(encoder, None)
    for i in range(len(TYPES)):
        own = encoder.token_embedding(torch.tensor(encoder.tokenizer.pieces(prompts.text(i)))).mean(dim=0)
        torch.testing.assert_close(prompts.vectors[i], own.expand(8, -1))


def test_each_different_type_is_encoded_once(tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_fast.cond_stage_model
    rows: list[int] = []
    own = encoder.encode_embeddings
    monkeypatch.setattr(encoder, "encode_embeddings", lambda e: rows.append(len(e)) or own(e))
    index = torch.tensor([5, 0, 5, 5, 2])
    out = tiny_fast.prompts(encoder, index)
    assert rows == [3]
    assert out.shape == (5, encoder.max_length, encoder.width)
    for i, number in enumerate(index):
        torch.testing.assert_close(out[i], tiny_fast.prompts(encoder, number[None])[0])


def test_gradients_reach_the_vectors_used_and_nothing_else(tiny_fast: FAST) -> None:
    encoder, prompts = tiny_fast.cond_stage_model, tiny_fast.prompts
    prompts(encoder, torch.tensor([1, 3, 1])).square().sum().backward()
    touched = prompts.vectors.grad.abs().sum(dim=(1, 2)) > 0
    assert touched.tolist() == [i in (1, 3) for i in range(len(TYPES))]
    assert (prompts.vectors.grad[1].abs().sum(dim=1) > 0).all()  # every one of the 8
    assert all(p.grad is None for p in encoder.parameters())


def test_a_long_name_is_cut_and_leaves_room_for_all_vectors(tiny_fast: FAST) -> None:
    encoder = tiny_fast.cond_stage_model
    prompts = LearnedPrompts(["wood/" + "_".join(["scratch"] * 60)], encoder.width)
    prompts.start_from(encoder, None)
    prompts(encoder, torch.tensor([0])).sum().backward()
    assert (prompts.vectors.grad[0].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(("types", "message"), [([], "no defect types"), (["scratch"], "category/anomaly")])
def test_types_must_be_there_and_readable(types: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LearnedPrompts(types, 16)
