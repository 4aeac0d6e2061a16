"""Text encoders against golden tensors, published key lists and `transformers`."""

import subprocess
import sys

import pytest
import torch

from ldm.checkpoint import load_strict
from ldm.errors import UserError
from ldm.modules.clip_text import CLIPTextConfig, CLIPTextModel
from ldm.modules.encoders.modules import BERTEmbedder, ClassEmbedder, FrozenCLIPEmbedder
from ldm.modules.x_transformer import Encoder, TransformerWrapper
from support.golden import golden, published_keys, weigh
from support.paths import ROOT

MINI = ROOT / "configs/mini/tokenizer"
SMALL_CLIP = {
    "vocab_size": 2000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
}


def small_bert(**options) -> BERTEmbedder:
    torch.manual_seed(0)
    return BERTEmbedder(32, 2, **{"vocab_size": 2000, "max_seq_len": 20, "tokenizer": MINI, **options}).eval()


def small_clip(**options) -> FrozenCLIPEmbedder:
    torch.manual_seed(0)
    return FrozenCLIPEmbedder(**{"max_length": 20, "text_config": SMALL_CLIP, "tokenizer": str(MINI), **options})


def test_bert_transformer_matches_the_original():
    config, tensors = golden("bert_transformer")
    model = weigh(
        TransformerWrapper(config["num_tokens"], config["max_seq_len"], Encoder(config["dim"], config["depth"]))
    )
    out = model(tensors["tokens"], return_embeddings=True)
    want = tensors["embeddings"]
    assert (out - want).norm() <= 1e-4 * want.norm()
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


def test_bert_keys_are_those_of_txt2img_f8_large():
    prefix = "cond_stage_model."
    want = {k[len(prefix) :]: shape for k, shape in published_keys().items() if k.startswith(prefix)}
    with torch.device("meta"):
        model = BERTEmbedder(1280, 32)
    assert len(want) == 422
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == want


def test_bert_attends_only_where_the_mask_allows():
    model, tokens = small_bert(), torch.randint(0, 2000, (2, 20))
    mask = torch.arange(20).expand(2, 20) < 7
    full = model.transformer(tokens, mask=mask, return_embeddings=True)
    short = model.transformer(tokens[:, :7], return_embeddings=True)
    torch.testing.assert_close(full[:, :7], short)
    assert model.transformer(tokens).shape == (2, 20, 2000)  # logits


def sd_v1_keys(width: int = 768, hidden: int = 3072, layers: int = 12) -> dict[str, tuple[int, ...]]:
    """Name and shape of every CLIP weight in a Stable Diffusion v1 checkpoint, without `cond_stage_model.`."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
    }

    def affine(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    for i in range(layers):
        for name in ("q", "k", "v", "out"):
            affine(f"encoder.layers.{i}.self_attn.{name}_proj", width, width)
        affine(f"encoder.layers.{i}.layer_norm1", width)
        affine(f"encoder.layers.{i}.layer_norm2", width)
        affine(f"encoder.layers.{i}.mlp.fc1", hidden, width)
        affine(f"encoder.layers.{i}.mlp.fc2", width, hidden)
    affine("final_layer_norm", width)
    return {f"transformer.text_model.{name}": shape for name, shape in shapes.items()}


def test_clip_keys_are_those_of_stable_diffusion_v1():
    with torch.device("meta"):
        model = FrozenCLIPEmbedder()
    want = sd_v1_keys()
    assert len(want) == 196
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == want


def test_clip_loads_with_and_without_position_ids():
    model = small_clip()
    state = {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    with_ids = {**state, "transformer.text_model.embeddings.position_ids": torch.arange(20)[None]}
    model.load_state_dict(state, strict=True)
    model.load_state_dict(with_ids, strict=True)
    assert len(with_ids) == len(state) + 1  # the caller's dictionary stays whole
    load_strict(model, with_ids, "checkpoint", ignore=model.surplus_keys)
    with pytest.raises(RuntimeError, match="bogus"):
        model.load_state_dict({**state, "transformer.text_model.embeddings.bogus": torch.zeros(1)}, strict=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_clip_matches_transformers(attention):
    import transformers

    config = transformers.CLIPTextConfig(
        **SMALL_CLIP, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=2, attn_implementation=attention
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPTextModel(config).eval()
    ours = CLIPTextModel(CLIPTextConfig(**SMALL_CLIP)).eval()
    # Versions differ in whether names start with `text_model.`.
    state = {
        f"text_model.{k.removeprefix('text_model.')}": torch.randn_like(v) * 0.3 for k, v in ours.state_dict().items()
    }
    ours.load_state_dict(state, strict=True)
    bare = not any(k.startswith("text_model.") for k in theirs.state_dict())
    theirs.load_state_dict({k.removeprefix("text_model.") if bare else k: v for k, v in state.items()}, strict=True)
    tokens = torch.randint(0, 2000, (3, 20))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_clip_is_causal_and_frozen():
    model, tokens = small_clip(), torch.randint(0, 2000, (2, 20))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 2000
    torch.testing.assert_close(model(tokens)[:, :12], model(changed)[:, :12])
    assert not torch.allclose(model(tokens)[:, 12:], model(changed)[:, 12:])
    assert not any(p.requires_grad for p in model.parameters())
    assert all(p.requires_grad for p in small_clip(freeze=False).parameters())


@pytest.mark.parametrize("build", [small_bert, small_clip])
def test_embeddings_give_what_tokens_give_and_pass_gradients(build):
    model = build().requires_grad_(False)
    texts = ["a photo of a bottle with a large crack", "leather"]
    tokens = model.tokenize(texts)
    embeds = model.embed_tokens(tokens).requires_grad_()
    out = model.encode_embeddings(embeds)
    assert tokens.shape == (2, model.max_length)
    assert out.shape == (2, model.max_length, model.width)
    for other in (model(texts), model.encode(texts), model(tokens)):
        torch.testing.assert_close(out, other)
    torch.testing.assert_close(model("leather"), out[1:])
    out.sum().backward()
    assert embeds.grad is not None
    assert embeds.grad.abs().sum() > 0


def test_tokens_are_those_of_the_transformers_call():
    model = small_bert()
    texts = ["", "Scratch!", "a photo of a hazelnut with a broken_large crack " * 3, "unseen words zyqxj 4711"]
    want = model.tokenizer.loaded(
        texts, truncation=True, max_length=20, padding="max_length", return_tensors="pt", add_special_tokens=True
    )
    assert torch.equal(model.tokenize(texts), want["input_ids"])
    assert (model.pad_id, model.start_id, model.end_id) == (0, 2, 3)
    assert model.tokenizer.frame([9, 8]) == [2, 9, 8, 3] + [0] * 16


def test_mini_tokenizer_covers_any_word():
    tokenizer = small_bert().tokenizer.loaded
    text = "Pottery scrimshaw zyqxj 4711 Öl-Fleck größe ~5° <*> {a_b} naïve # @ 0.5mm × 2 “worn” anodised jabberwocky"
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    for word in (
        "hazelnut",
        "zipper",
        "contamination",
        "imprint",
        "blowhole",
        "uneven",
        "fray",
        "damaged",
        "macaroni1",
    ):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
    vocab = (MINI / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(vocab) == len(set(vocab)) == len(tokenizer)
    assert vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize("build", [small_bert, small_clip])
def test_tokenizer_is_asked_for_only_when_text_comes(build, tmp_path):
    remedy = "cond_stage_config.params.tokenizer="
    model = build(tokenizer=None)
    assert model(torch.zeros(1, 20, dtype=torch.long)).shape == (1, 20, 32)
    with pytest.raises(UserError, match=f"tokenizer=None.*{remedy}"):
        model(["a crack"])
    with pytest.raises(UserError, match=f"absent is not a folder.*{remedy}"):
        build(tokenizer=tmp_path / "absent")(["a crack"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"empty.*{remedy}"):
        build(tokenizer=tmp_path / "empty")(["a crack"])


def test_a_folder_without_vocabulary_is_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text((MINI / "tokenizer_config.json").read_text())
    with pytest.raises(UserError, match=str(tmp_path)):
        small_bert(tokenizer=tmp_path)(["a crack"])


def test_hub_name_goes_to_transformers_and_its_failure_is_one_line(monkeypatch):
    import transformers

    asked = []

    def fail(name, **options):
        asked.append((name, options))
        raise OSError("no network\nmore")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"tokenizer=some/name could not be loaded \(no network\)"):
        small_bert(tokenizer="some/name")(["a crack"])
    assert asked == [("some/name", {})]


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"entries, more than vocab_size=100"):
        small_bert(vocab_size=100)(["a crack"])
    with pytest.raises(UserError, match="use_tokenizer=False"):
        small_bert(use_tokenizer=False)(["a crack"])
    with pytest.raises(UserError, match="max_length=30 exceeds max_position_embeddings=20"):
        small_clip(max_length=30)
    with pytest.raises(UserError, match="unknown config key hidden for text_config"):
        small_clip(text_config={"hidden": 3})
    with pytest.raises(ValueError, match="21 tokens exceed"):
        small_bert()(torch.zeros(1, 21, dtype=torch.long))
    with pytest.raises(ValueError, match="21 tokens exceed"):
        small_clip()(torch.zeros(1, 21, dtype=torch.long))


def test_clip_takes_a_local_version_folder_as_its_tokenizer():
    model = small_clip(tokenizer=None, version=str(MINI))
    assert model.tokenize(["a crack"])[0, 0] == model.start_id


def test_class_embedder():
    model = ClassEmbedder(8, n_classes=5, key="label")
    labels = torch.tensor([4, 0, 2])
    out = model({"label": labels})
    assert out.shape == (3, 1, 8)
    assert list(model.state_dict()) == ["embedding.weight"]
    torch.testing.assert_close(out[:, 0], model.embedding.weight[labels])
    torch.testing.assert_close(model(labels), out)
    torch.testing.assert_close(model({"other": labels}, key="other"), out)


def test_import_does_not_pull_in_transformers():
    code = "import sys, ldm.modules.encoders.modules; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
