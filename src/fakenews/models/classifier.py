"""The LightningModule: a network, its loss, its optimizer, and nothing else.

Shapes: B batch, T tokens, F tabular features, C classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fakenews.bounds import Fraction, NonNegative, Positive, Probability
from fakenews.errors import TrainingError
from fakenews.evaluation.calibration import softmax
from fakenews.evaluation.metrics import classification_metrics
from fakenews.models.networks import Network

_EPOCH_METRICS = ("average_precision", "macro_f1", "auroc", "accuracy", "log_loss")

_LOSS_CHECK_STEPS = 20

ClassWeights = Literal["none", "balanced", "sqrt"]


class Batch(NamedTuple):
    """Rows of like length; an input that the network does not read is [B, 0].

    A *blank* batch is one row of number -1, which counts nothing: a rank that has no rows
    left takes part in a step with it. Weights are None where all rows count the same.
    """

    rows: Tensor  # [B] int64, unique in the split: row numbers, or ids
    input_ids: Tensor  # [B, T] int64
    attention_mask: Tensor  # [B, T] int64
    tabular: Tensor  # [B, F] float32
    labels: Tensor  # [B] int64
    weights: Tensor | None = None  # [B] float64, at least 0; 0 of a blank batch


class Classifier(L.LightningModule):
    """Trains a network on batches of text and tabular features.

    Args:
        network: Makes the network from `encoder`, `tabular_dim` and `num_classes`.
        encoder: The text encoder, or None for a network that reads no text.
        tabular_dim: Number F of tabular features.
        classes: Class names; their order is the order of the logits.
        positive: The class of interest.
        class_counts: Training rows of each class, for `class_weights`.
        optimizer: Makes the optimizer from parameter groups.
        scheduler: Makes the learning-rate schedule, stepped after each optimizer step,
            from the optimizer and `total_steps`.
        class_weights: Weight of each class in the loss: equal; inverse to its frequency
            (`balanced`); or to the square root of it (`sqrt`).
        focal_gamma: Focusing parameter of the focal loss (Lin et al. 2017, "Focal Loss
            for Dense Object Detection"); 0 is plain cross-entropy.
        label_smoothing: Share of the target spread over all classes.
        layer_decay: Factor on the learning rate from each encoder layer to the one
            below it (Howard and Ruder 2018, "Universal Language Model Fine-tuning").
        head_lr_scale: Factor on the learning rate of all but the encoder.
    """

    def __init__(
        self,
        *,
        network: Callable[..., Network],
        encoder: nn.Module | None,
        tabular_dim: int,
        classes: Sequence[str],
        positive: str,
        class_counts: Mapping[str, int],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler],
        class_weights: ClassWeights = "none",
        focal_gamma: NonNegative = 0.0,
        label_smoothing: Probability = 0.0,
        layer_decay: Fraction = 1.0,
        head_lr_scale: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.network = network(
            encoder=encoder, tabular_dim=tabular_dim, num_classes=len(classes)
        )
        # FSDP makes them flat before it asks for an optimizer.
        self._matrices = {name for name, p in self.named_parameters() if p.ndim > 1}
        self.classes = list(classes)
        self.positive = positive
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.layer_decay = layer_decay
        self.head_lr_scale = head_lr_scale
        counts = torch.tensor([class_counts[name] for name in classes], dtype=torch.float32)
        power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[class_weights]
        # Scaled so that the mean weight of a training row is 1: the learning rate keeps
        # its meaning.
        weights = counts.pow(-power)
        self.weights: Tensor
        self.register_buffer(
            "weights", weights * counts.sum() / (weights * counts).sum(), persistent=False
        )
        self._validation: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss(
        self, logits_BC: Tensor, labels_B: Tensor, shares_B: Tensor | None = None
    ) -> Tensor:
        """Weighted, smoothed, focal cross-entropy, averaged over the batch's rows.

        Args:
            logits_BC: Of the network.
            labels_B: Class codes.
            shares_B: How much of the average each row is; None: all the same.
        """
        loss_B = functional.cross_entropy(
            logits_BC, labels_B, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.focal_gamma:
            p_B = logits_BC.softmax(1).gather(1, labels_B[:, None])[:, 0]
            loss_B = (1 - p_B) ** self.focal_gamma * loss_B
        # Over rows, not over weights: otherwise a batch of one class would undo them.
        loss_B = self.weights[labels_B] * loss_B
        return loss_B.mean() if shares_B is None else (shares_B.to(loss_B.dtype) * loss_B).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch.

        Raises:
            TrainingError: The loss is not finite.
        """
        logits_BC = self.network(batch.input_ids, batch.attention_mask, batch.tabular)
        shares_B = None if batch.weights is None else self._shares(batch.weights)
        # Short batches only are looked at: on a GPU each look waits for the device.
        if len(batch.rows) == 1 and int(batch.rows[0]) < 0:
            # Other ranks wait for this one's gradients, which are zero.
            nothing: Tensor = (logits_BC * 0).sum()
            return nothing
        loss = self.loss(logits_BC, batch.labels, shares_B)
        # Looked at now and then only: on a GPU each look waits for the device.
        if batch_idx % _LOSS_CHECK_STEPS == 0 and not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item()}")
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.labels))
        return loss

    def _shares(self, weights_B: Tensor) -> Tensor:
        """Weights over those of all ranks' rows; every rank must ask at each step."""
        trainer = self.trainer
        total: Any = trainer.strategy.reduce(weights_B.sum(), reduce_op="sum")
        # Gradients are averaged over ranks, and this is a part of the sum. Rows may all have
        # no weight.
        smallest = torch.finfo(weights_B.dtype).tiny
        shares_B: Tensor = trainer.world_size * weights_B / total.clamp_min(smallest)
        return shares_B

    def _diverged(self, fault: str) -> TrainingError:
        return TrainingError(
            f"{fault} at step {self.global_step}: lower optimizer.lr or raise scheduler.warmup"
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the logits of a batch; metrics need all of them."""
        del batch_idx
        logits_BC = self.network(batch.input_ids, batch.attention_mask, batch.tabular)
        self._validation.append((batch.rows, logits_BC.double(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over every validation row, counted once.

        Raises:
            TrainingError: A logit is not finite.
        """
        rows, logits, labels = (
            torch.cat(column) for column in zip(*self._validation, strict=True)
        )
        self._validation.clear()
        _, logits_NC, labels_N = self._gathered(rows, logits, labels)
        if not np.isfinite(logits_NC).all():
            raise self._diverged("a logit of the validation split is not finite")
        probabilities = softmax(logits_NC)
        metrics = classification_metrics(
            probabilities, labels_N, classes=self.classes, positive=self.positive
        )
        for name in _EPOCH_METRICS:
            shown = name in ("average_precision", "macro_f1")
            # Equal on all ranks already; Lightning wants to be told to average.
            self.log(f"val/{name}", metrics[name], prog_bar=shown, sync_dist=True)

    def _gathered(self, *columns: Tensor) -> list[np.ndarray[Any, Any]]:
        """Every rank's rows, sorted by row number, each row once, without blank ones."""
        arrays = [column.cpu().numpy() for column in columns]
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, arrays)
            arrays = [np.concatenate(column) for column in zip(*parts, strict=True)]
        rows, first = np.unique(arrays[0], return_index=True)
        first = first[rows >= 0]
        return [array[first] for array in arrays]

    def configure_optimizers(self) -> Any:
        """One parameter group for each depth, with its learning rate and weight decay."""
        optimizer = self.optimizer(list(self.parameter_groups()))
        scheduler = self.scheduler(
            optimizer, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Split trainable parameters by depth, and by whether they decay.

        Biases and norms (parameters of one dimension) do not decay. The head comes
        first, then the encoder's layers from the top, then its embeddings.
        """
        network = self.network
        encoder = network.encoder
        learning_rate = float(self.optimizer.keywords["lr"])  # type: ignore[attr-defined]
        in_encoder = {id(p) for p in encoder.parameters()} if encoder is not None else set()
        depths = [
            (self.head_lr_scale, [p for p in self.parameters() if id(p) not in in_encoder])
        ]
        if encoder is not None:
            layers = list(reversed(encoder.layers))
            in_layers = {id(p) for layer in layers for p in layer.parameters()}
            depths += [
                (self.layer_decay**depth, list(layer.parameters()))
                for depth, layer in enumerate(layers)
            ]
            rest = [p for p in encoder.parameters() if id(p) not in in_layers]
            depths.append((self.layer_decay ** len(layers), rest))
        matrices = {
            id(p)
            for name, p in self.named_parameters()
            if name.replace("_fsdp_wrapped_module.", "") in self._matrices
        }
        for scale, parameters in depths:
            trainable = [p for p in parameters if p.requires_grad]
            decaying = [p for p in trainable if id(p) in matrices]
            plain = [p for p in trainable if id(p) not in matrices]
            if decaying:
                yield {"params": decaying, "lr": learning_rate * scale}
            if plain:
                yield {"params": plain, "lr": learning_rate * scale, "weight_decay": 0.0}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, also where FSDP has split the gradients."""
        root = self.trainer.strategy.model
        if isinstance(root, FullyShardedDataParallel) and gradient_clip_algorithm != "value":
            # Of all parts together, which Lightning refuses to do.
            if gradient_clip_val:
                root.clip_grad_norm_(gradient_clip_val)
            return
        precision = self.trainer.precision_plugin
        if isinstance(precision, MixedPrecision) and precision.scaler is None:
            # Lightning refuses fused optimizers, but bfloat16 has nothing to unscale.
            Precision.clip_gradients(
                precision,
                optimizer,
                gradient_clip_val or 0.0,
                GradClipAlgorithmType(gradient_clip_algorithm or "norm"),
            )
            return
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
