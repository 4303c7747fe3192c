"""The LightningModule: loss, parameter groups, metrics."""

from functools import partial
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from fakenews.errors import TrainingError
from fakenews.evaluation.calibration import softmax
from fakenews.evaluation.metrics import classification_metrics
from fakenews.models.classifier import Batch, Classifier
from fakenews.models.encoder import TextEncoder
from fakenews.models.networks import FusionNet, TabularNet
from fakenews.models.schedules import warmup_then

pytestmark = [
    # Lightning's own use of torch, and its advice for other loaders than these.
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
]

CLASSES = ["fake", "real"]
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 3.0], [0.5, 0.5]])
LABELS = torch.tensor([0, 1, 0, 1])


def make(
    *, encoder: TextEncoder | None = None, classes: list[str] = CLASSES, **arguments: Any
) -> Classifier:
    torch.manual_seed(0)
    counts = arguments.pop("class_counts", dict.fromkeys(classes, 10))
    lr = arguments.pop("lr", 1e-2)
    return Classifier(
        network=FusionNet if encoder else TabularNet,
        encoder=encoder,
        tabular_dim=4,
        classes=classes,
        positive=classes[0],
        class_counts=counts,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=0.1),
        scheduler=warmup_then,
        **arguments,
    )


def tiny_encoder() -> TextEncoder:
    config = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return TextEncoder.from_architecture({"config": config, "pooling": "mean"})


def batches(rows: int = 24, size: int = 8, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    empty = torch.zeros(size, 0, dtype=torch.long)
    return [
        Batch(
            rows=torch.arange(start, start + size),
            input_ids=empty,
            attention_mask=empty,
            tabular=torch.randn(size, 4, generator=generator),
            labels=torch.arange(size) % 2,
        )
        for start in range(0, rows, size)
    ]


def loader(content: list[Batch]) -> DataLoader[Batch]:
    return DataLoader(content, batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]


def _as_is(batch: Batch) -> Batch:
    return batch


def trainer(**arguments: Any) -> L.Trainer:
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
        }
        | arguments
    )


def test_plain_loss_is_cross_entropy():
    expected = functional.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(make().loss(LOGITS, LABELS), expected)


def test_smoothed_loss_by_hand():
    # Of two classes, each gets half of what is smoothed away.
    log_p = LOGITS.log_softmax(1)
    right, wrong = log_p.gather(1, LABELS[:, None]), log_p.gather(1, 1 - LABELS[:, None])
    expected = -(0.9 * right + 0.1 * wrong).mean()
    found = make(label_smoothing=0.2).loss(LOGITS, LABELS)
    torch.testing.assert_close(found, expected)


def test_focal_loss_by_hand():
    p = LOGITS.softmax(1).gather(1, LABELS[:, None])
    expected = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(make(focal_gamma=2.0).loss(LOGITS, LABELS), expected)


@pytest.mark.parametrize(("kind", "ratio"), [("none", 1.0), ("sqrt", 3.0), ("balanced", 9.0)])
def test_class_weights(kind: Any, ratio: float):
    model = make(class_weights=kind, class_counts={"fake": 10, "real": 90})
    assert model.weights[0] / model.weights[1] == pytest.approx(ratio)
    # The mean weight of a training row is 1.
    assert (model.weights * torch.tensor([0.1, 0.9])).sum() == pytest.approx(1)
    expected = model.weights[LABELS] * functional.cross_entropy(
        LOGITS, LABELS, reduction="none"
    )
    torch.testing.assert_close(model.loss(LOGITS, LABELS), expected.mean())


def test_weights_hold_in_a_batch_of_one_class():
    model = make(class_weights="balanced", class_counts={"fake": 10, "real": 90})
    one = torch.zeros(4, dtype=torch.long)
    ratio = model.loss(LOGITS, one) / functional.cross_entropy(LOGITS, one)
    assert ratio == pytest.approx(5.0)


def test_every_trainable_parameter_is_in_one_group():
    model = make(encoder=tiny_encoder(), layer_decay=0.5, head_lr_scale=10.0)
    grouped = [p for group in model.parameter_groups() for p in group["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))


def test_frozen_parameters_are_in_none():
    encoder = tiny_encoder()
    encoder.freeze(embeddings=True, layers=2)
    model = make(encoder=encoder)
    grouped = {id(p) for group in model.parameter_groups() for p in group["params"]}
    frozen = [*encoder.backbone.embeddings.parameters(), *encoder.layers[:2].parameters()]
    assert not grouped & {id(p) for p in frozen}
    assert {id(p) for p in encoder.layers[2].parameters()} <= grouped


def test_learning_rates_fall_with_depth():
    encoder = tiny_encoder()
    model = make(encoder=encoder, lr=1.0, layer_decay=0.5, head_lr_scale=10.0)
    rate = {id(p): g["lr"] for g in model.parameter_groups() for p in g["params"]}
    assert {rate[id(p)] for p in model.network.head.parameters()} == {10.0}
    for layer, expected in zip(encoder.layers, (0.25, 0.5, 1.0), strict=True):
        assert {rate[id(p)] for p in layer.parameters()} == {expected}
    assert {rate[id(p)] for p in encoder.backbone.embeddings.parameters()} == {0.125}


def test_biases_and_norms_do_not_decay():
    model = make(encoder=tiny_encoder())
    names = {id(p): name for name, p in model.named_parameters()}
    for group in model.parameter_groups():
        for parameter in group["params"]:
            plain = (
                names[id(parameter)].endswith("bias") or "norm" in names[id(parameter)].lower()
            )
            assert (group.get("weight_decay") == 0.0) == (plain or parameter.ndim == 1)


def test_a_loss_that_is_not_finite_ends_the_training_in_one_line():
    broken = batches()
    broken[0].tabular[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0: lower optimizer\.lr"):
        trainer().fit(make(), loader(broken), loader(batches(seed=1)))


def test_weights_that_are_not_finite_end_it_at_validation():
    broken = batches()
    broken[1].tabular[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="validation split is not finite at step 3"):
        trainer().fit(make(), loader(broken), loader(batches(seed=1)))


def test_validation_metrics_are_over_all_rows_once():
    model = make()
    content = batches(seed=3)
    content[1].labels[:] = 1
    # A distributed sampler may repeat rows to give every rank as many.
    run = trainer()
    with torch.no_grad():
        logits = torch.cat([model.network.eval()(*batch[1:4]) for batch in content])
    run.validate(model, loader([*content, content[0]]), verbose=False)
    expected = classification_metrics(
        softmax(logits.double().numpy()),
        np.concatenate([batch.labels.numpy() for batch in content]),
        classes=CLASSES,
        positive="fake",
    )
    for name in ("average_precision", "macro_f1", "auroc", "accuracy", "log_loss"):
        assert float(run.callback_metrics[f"val/{name}"]) == pytest.approx(expected[name], 1e-5)


def test_training_learns_a_separable_rule():
    content = batches(rows=64)
    for batch in content:
        batch.tabular[:, 0] = batch.labels * 4.0 - 2.0
    model = make(lr=1e-2)
    run = trainer(max_epochs=10)
    run.fit(model, loader(content), loader(batches(seed=1)))
    logits: Tensor = model.network.eval()(*content[0][1:4])
    assert (logits.argmax(1) == content[0].labels).all()


def test_several_classes():
    model = make(classes=["a", "b c", "d/e"])
    logits = torch.randn(6, 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(
        model.loss(logits, labels), functional.cross_entropy(logits, labels)
    )


def blank() -> Batch:
    empty = torch.zeros(1, 0, dtype=torch.long)
    return Batch(
        rows=torch.tensor([-1]),
        input_ids=empty,
        attention_mask=empty,
        tabular=torch.zeros(1, 4),
        labels=torch.zeros(1, dtype=torch.long),
    )


def test_a_blank_batch_has_gradients_of_zero_and_is_not_logged():
    model = make(label_smoothing=0.1, focal_gamma=2.0, class_weights="balanced")
    loss = model.training_step(blank(), 0)
    loss.backward()
    assert loss.item() == 0
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_a_single_row_is_not_blank():
    model = make()
    one = Batch(*(column[:1] for column in batches()[0] if column is not None))
    logged: list[str] = []
    model.log = lambda name, *_, **__: logged.append(name)  # type: ignore[assignment,method-assign]
    assert model.training_step(one, 0).item() > 0
    assert logged == ["train/loss"]


def test_blank_rows_are_not_validated():
    content = batches()
    plain = trainer().validate(make(), loader(content), verbose=False)
    padded = trainer().validate(make(), loader([*content, blank()]), verbose=False)
    assert padded == plain


def weighted(content: list[Batch], *weights: float) -> list[Batch]:
    """Batches whose rows have these weights, again and again."""
    rows = sum(len(batch.rows) for batch in content)
    found = torch.tensor(weights, dtype=torch.float64).repeat(rows)[:rows]
    sizes = [len(batch.rows) for batch in content]
    return [
        batch._replace(weights=part)
        for batch, part in zip(content, found.split(sizes), strict=True)
    ]


def fitted(content: list[Batch], **arguments: Any) -> dict[str, Tensor]:
    model = make(**arguments)
    model.network = TabularNet(tabular_dim=4, num_classes=2, dropout=0.0)
    # In float32 the order of a sum, which differs between processors, is seen in the weights.
    fitting = trainer(max_epochs=2, precision="64-true")
    fitting.fit(model, loader(content), loader(batches()))
    return model.network.state_dict()


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_the_loss_of_shares_is_a_weighted_mean_and_classes_are_weighted_too():
    model = make(class_counts={"fake": 30, "real": 10}, class_weights="balanced")
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0], dtype=torch.float64)
    rows = functional.cross_entropy(LOGITS, LABELS, reduction="none") * model.weights[LABELS]
    expected = (weights * rows).sum() / weights.sum()
    found = model.loss(LOGITS, LABELS, weights / weights.sum())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())


def test_a_weight_is_relative_to_those_of_its_batch():
    plain = fitted(batches())
    assert differ(fitted(weighted(batches(), 1)), plain) < 1e-6
    for scale in (1e-300, 7, 1e300):
        assert differ(fitted(weighted(batches(), scale)), plain) < 1e-6, scale
    assert differ(fitted(weighted(batches(), 1, 3)), plain) > 1e-3


def test_rows_without_weight_are_not_learnt_from_and_a_batch_of_them_changes_nothing():
    content = batches()
    turned = [batch._replace(labels=1 - batch.labels) for batch in content]
    spoilt = [
        Batch(*(torch.cat(pair) for pair in zip(one[:-1], two[:-1], strict=True)))
        for one, two in zip(content, turned, strict=True)
    ]
    only = [
        batch._replace(weights=torch.tensor([1.0] * 8 + [0.0] * 8).double()) for batch in spoilt
    ]
    assert differ(fitted(only), fitted(content)) < 1e-6
    model = make()
    (nothing,) = weighted(content[:1], 0)
    trainer(max_epochs=1).fit(model, loader([nothing]), loader(content))
    # But for the decay of weights, which AdamW does without any gradient.
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
