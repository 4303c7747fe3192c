"""What makes a training smaller or faster, by option."""

import copy
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from fakenews.errors import ConfigError
from fakenews.models.classifier import Batch, Classifier
from fakenews.models.encoder import TextEncoder
from fakenews.models.networks import FusionNet, TabularNet
from fakenews.models.schedules import warmup_then
from fakenews.training.compilation import compile_network, not_compiled
from fakenews.training.process import check_accelerator, tune_process

pytestmark = [
    # Lightning's own use of torch, and its advice for other loaders than these.
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def classifier(*, text: bool = True) -> Classifier:
    torch.manual_seed(0)
    config = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return Classifier(
        network=partial(FusionNet if text else TabularNet, dropout=0.0),
        encoder=TextEncoder.from_architecture({"config": config, "pooling": "mean"})
        if text
        else None,
        tabular_dim=4,
        classes=["fake", "real"],
        positive="fake",
        class_counts={"fake": 10, "real": 10},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        scheduler=warmup_then,
    )


def batch(rows: int, tokens: int, *, start: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(start)
    return Batch(
        rows=torch.arange(start, start + rows),
        input_ids=torch.randint(1, 50, (rows, tokens), generator=generator),
        attention_mask=torch.ones(rows, tokens, dtype=torch.long),
        tabular=torch.randn(rows, 4, generator=generator),
        labels=torch.arange(rows) % 2,
    )


def fitted(batches: list[Batch], model: Classifier, root: Path, **trainer: Any) -> Classifier:
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type,var-annotated]
    L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        **trainer,
    ).fit(model, loader)
    return model


def assert_close(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for (name, left), right in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5, msg=name)


def test_two_accumulated_batches_are_one_step_on_both(tmp_path: Path):
    parts = [batch(4, 6), batch(4, 6, start=4)]
    # Without weights, which are last.
    whole = Batch(
        *(torch.cat(columns) for columns in zip(*(p[:-1] for p in parts), strict=True))
    )
    start = copy.deepcopy(classifier())
    one = fitted([whole], classifier(), tmp_path, gradient_clip_val=1.0)
    two = fitted(
        parts, classifier(), tmp_path, gradient_clip_val=1.0, accumulate_grad_batches=2
    )
    assert_close(one, two)
    assert not torch.equal(one.network.head[1].weight, start.network.head[1].weight)


@pytest.fixture
def uncompiled() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@needs_compiler
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore")  # of torch about itself
@pytest.mark.slow
@pytest.mark.parametrize("text", [False, True])
def test_a_compiled_network_learns_the_same(tmp_path: Path, text: bool):
    batches = [batch(4, 6), batch(6, 9, start=4)]
    plain = fitted(batches, classifier(text=text), tmp_path)
    compiled = classifier(text=text)
    compile_network(compiled.network)
    assert_close(plain, fitted(batches, compiled, tmp_path))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_compiling_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "absent"),))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(ConfigError, match=r"compile=true needs a C\+\+ compiler .* leave"):
        compile_network(torch.nn.Linear(1, 1))
    cpp_builder.cpp_compiler_search.cache_clear()


def test_a_compiler_that_fails_is_one_line():
    message = str(not_compiled(RuntimeError("\nbackend failed:\nlong story")))
    assert message == "compile=true failed (backend failed:): leave compile out"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("accelerator", "sharded", "message"),
    [
        ("gpu", False, "trainer.accelerator=gpu: PyTorch sees no GPU here; use trainer=cpu"),
        ("gpu", True, "trainer=fsdp splits weights over GPUs and PyTorch sees none here"),
        ("cpu", True, "trainer=fsdp splits weights over GPUs"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu(accelerator: str, sharded: bool, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_accelerator(accelerator, sharded=sharded)


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.usefixtures("no_gpu")
def test_what_needs_no_gpu(accelerator: str):
    check_accelerator(accelerator, sharded=False)


def test_precision_of_products():
    try:
        tune_process(matmul_precision="high")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        tune_process()
        torch.set_flush_denormal(False)
    assert torch.get_float32_matmul_precision() == "highest"
