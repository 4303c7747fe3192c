"""The networks: text, tabular, and two ways of fusing them.

Every network maps the same three inputs to logits and says which of them it reads;
an input that is not read is [B, 0], so that nothing is tokenised or counted in vain.
The text is read on its own, as `pooled`, before the features come to it.

Shapes: B batch, T tokens, D text dim, F tabular features, H hidden, C classes.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fakenews.bounds import PositiveCount, Probability
from fakenews.errors import ConfigError
from fakenews.models.encoder import TextEncoder


class Network(nn.Module):
    """Base of the networks.

    Attributes:
        name: Its name in `NETWORKS` and in a bundle.
        reads_text: Whether it reads tokens, and so has an encoder.
        reads_tabular: Whether it reads tabular features.
        arguments: The keyword arguments it was made with (without the encoder).

    Raises:
        ConfigError: It reads tabular features and there are none.
    """

    encoder: TextEncoder | None
    name: ClassVar[str]
    reads_text: ClassVar[bool] = True
    reads_tabular: ClassVar[bool] = True

    def __init__(self, encoder: TextEncoder | None, **arguments: Any) -> None:
        super().__init__()
        if self.reads_text and encoder is None:
            raise ConfigError(f"model={self.name} needs an encoder")
        if self.reads_tabular and arguments["tabular_dim"] < 1:
            raise ConfigError(
                f"model={self.name} needs tabular features and features=none gives none: "
                "choose features=headline or model=text"
            )
        self.encoder = encoder
        self.arguments = arguments

    def pooled(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """The encoder's vector of each text, [B, D]; D is 0 without an encoder."""
        if self.encoder is None:
            return torch.empty((len(input_ids_BT), 0), device=input_ids_BT.device)
        vectors_BD: Tensor = self.encoder(input_ids_BT, attention_mask_BT)
        return vectors_BD

    def embed(self, text_BD: Tensor, tabular_BF: Tensor) -> Tensor:
        """The representation [B, H] that `classify` reads; drift is measured on it."""
        raise NotImplementedError

    def classify(self, embedding_BH: Tensor) -> Tensor:
        """Logits [B, C] from a representation."""
        raise NotImplementedError

    def forward(
        self, input_ids_BT: Tensor, attention_mask_BT: Tensor, tabular_BF: Tensor
    ) -> Tensor:
        """Logits [B, C]."""
        text_BD = self.pooled(input_ids_BT, attention_mask_BT)
        return self.classify(self.embed(text_BD, tabular_BF))

    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again, as plain JSON values."""
        encoder = self.encoder.architecture() if self.encoder is not None else None
        return {"network": self.name, "arguments": self.arguments, "encoder": encoder}


class FusionNet(Network):
    """The pooled text beside a projection of the tabular features, then an MLP.

    Args:
        encoder: The text encoder.
        tabular_dim: Number F of tabular features.
        num_classes: Number C of classes.
        hidden_size: Width of the hidden layer.
        tabular_size: Width of the tabular projection.
        dropout: Probability of dropping a unit before each linear layer of the head.
    """

    name = "fusion"

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        tabular_dim: int,
        num_classes: int,
        hidden_size: PositiveCount = 128,
        tabular_size: PositiveCount = 64,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__(
            encoder,
            tabular_dim=tabular_dim,
            num_classes=num_classes,
            hidden_size=hidden_size,
            tabular_size=tabular_size,
            dropout=dropout,
        )
        self.tabular = nn.Sequential(
            nn.Linear(tabular_dim, tabular_size), nn.GELU(), nn.LayerNorm(tabular_size)
        )
        # Both halves enter at one scale, whatever the encoder's.
        self.text_norm = nn.LayerNorm(encoder.dim)
        self.head = _head(encoder.dim + tabular_size, hidden_size, num_classes, dropout)

    def embed(self, text_BD: Tensor, tabular_BF: Tensor) -> Tensor:
        return torch.cat([self.text_norm(text_BD), self.tabular(tabular_BF)], dim=1)

    def classify(self, embedding_BH: Tensor) -> Tensor:
        result: Tensor = self.head(embedding_BH)
        return result


class SeedNet(Network):
    """The baseline of the tutorial that this project grew from.

    Pooled text -> dropout -> linear -> ReLU -> L2-norm, tabular -> L2-norm, both
    concatenated -> dropout -> output.

    Args:
        encoder: The text encoder.
        tabular_dim: Number F of tabular features.
        num_classes: Number C of classes.
        hidden_size: Width of the text's linear layer.
        dropout1: Dropout on the pooled text.
        dropout2: Dropout on the concatenation.
    """

    name = "seed"

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        tabular_dim: int,
        num_classes: int,
        hidden_size: PositiveCount = 12,
        dropout1: Probability = 0.2,
        dropout2: Probability = 0.2,
    ) -> None:
        super().__init__(
            encoder,
            tabular_dim=tabular_dim,
            num_classes=num_classes,
            hidden_size=hidden_size,
            dropout1=dropout1,
            dropout2=dropout2,
        )
        self.text = nn.Sequential(
            nn.Dropout(dropout1), nn.Linear(encoder.dim, hidden_size), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout2)
        self.output = nn.Linear(hidden_size + tabular_dim, num_classes)

    def embed(self, text_BD: Tensor, tabular_BF: Tensor) -> Tensor:
        halves = self.text(text_BD), tabular_BF
        return torch.cat([functional.normalize(half) for half in halves], dim=1)

    def classify(self, embedding_BH: Tensor) -> Tensor:
        result: Tensor = self.output(self.dropout(embedding_BH))
        return result


class TextNet(Network):
    """The text alone: pooled text -> norm -> dropout -> linear -> GELU -> output.

    Args:
        encoder: The text encoder.
        tabular_dim: Not used: every network takes the same arguments.
        num_classes: Number C of classes.
        hidden_size: Width of the hidden layer.
        dropout: Probability of dropping a unit before each linear layer.
    """

    name = "text"
    reads_tabular = False

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        tabular_dim: int,
        num_classes: int,
        hidden_size: PositiveCount = 128,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__(
            encoder,
            tabular_dim=tabular_dim,
            num_classes=num_classes,
            hidden_size=hidden_size,
            dropout=dropout,
        )
        self.norm = nn.LayerNorm(encoder.dim)
        self.head = _head(encoder.dim, hidden_size, num_classes, dropout)

    def embed(self, text_BD: Tensor, tabular_BF: Tensor) -> Tensor:
        del tabular_BF
        result: Tensor = self.norm(text_BD)
        return result

    def classify(self, embedding_BH: Tensor) -> Tensor:
        result: Tensor = self.head(embedding_BH)
        return result


class TabularNet(Network):
    """The tabular features alone: linear -> GELU -> dropout -> linear -> GELU -> output.

    Args:
        encoder: Not used: every network takes the same arguments.
        tabular_dim: Number F of tabular features.
        num_classes: Number C of classes.
        hidden_size: Width of both hidden layers.
        dropout: Probability of dropping a unit before each linear layer but the first.
    """

    name = "tabular"
    reads_text = False

    def __init__(
        self,
        encoder: TextEncoder | None = None,
        *,
        tabular_dim: int,
        num_classes: int,
        hidden_size: PositiveCount = 64,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__(
            encoder,
            tabular_dim=tabular_dim,
            num_classes=num_classes,
            hidden_size=hidden_size,
            dropout=dropout,
        )
        self.hidden = nn.Sequential(nn.Linear(tabular_dim, hidden_size), nn.GELU())
        self.head = _head(hidden_size, hidden_size, num_classes, dropout)

    def embed(self, text_BD: Tensor, tabular_BF: Tensor) -> Tensor:
        del text_BD
        result: Tensor = self.hidden(tabular_BF)
        return result

    def classify(self, embedding_BH: Tensor) -> Tensor:
        result: Tensor = self.head(embedding_BH)
        return result


def _head(inputs: int, hidden_size: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(inputs, hidden_size),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, num_classes),
    )


NETWORKS: dict[str, type[Network]] = {
    network.name: network for network in (FusionNet, SeedNet, TextNet, TabularNet)
}


def build(architecture: dict[str, Any]) -> Network:
    """Make a network, with random weights, from `Network.architecture()`."""
    encoder = architecture["encoder"]
    return NETWORKS[architecture["network"]](
        encoder=TextEncoder.from_architecture(encoder) if encoder else None,
        **architecture["arguments"],
    )
