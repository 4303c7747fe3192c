"""Which words spoke for a prediction: attributions to the words of one text.

A network's are integrated gradients (Sundararajan et al., 2017) along the straight path from
the embeddings of an empty text, all padding, to those of the text. The tabular features stay
as they are: what they say is in the baseline. TF-IDF is linear, so its are exact.

Attributions are parts of the target's logit, measured from the mean of all classes' logits:
a constant added to all logits changes no probability, so none of it belongs to a word.

Shapes: T tokens, D text dim, F tabular features, C classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fakenews.engines import TfidfEngine, TorchEngine
from fakenews.errors import ServingError
from fakenews.features.text import without_surrogates
from fakenews.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd

    from fakenews.models.networks import Network

# Scripts that put no spaces between words: there, every character is one.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
# Steps computed together: enough to keep the cores busy, few enough to stay in their cache.
_STEPS_PER_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word and what it adds to the target's logit.

    Attributes:
        text: The word.
        start: Its first character in the clean text.
        end: One past its last.
        attribution: Above 0 where it speaks for the target; 0 where it was not read.
    """

    text: str
    start: int
    end: int
    attribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What each word of a text adds.

    Attributes:
        text: Clean, as the model reads it.
        target: The class that is explained.
        words: In order; together all of the text but its spaces.
        completeness_error: By how much the sum of the attributions differs from the difference
            between the logits of the text and of the baseline.
    """

    text: str
    target: str
    words: list[Word]
    completeness_error: float

    def to_json(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "target": self.target,
            "words": [vars(word) for word in self.words],
            "text": self.text,
            "completeness_error": self.completeness_error,
        }


# A part of a text, by its first character and the one past its last, and what it adds.
_Part = tuple[int, int, float]


def explain(
    predictor: Predictor, frame: "pd.DataFrame", *, target: str, steps: int
) -> Explanation:
    """Attribute a class's logit to the words of a text.

    Args:
        predictor: Of the engine torch, or of TF-IDF.
        frame: One row: the clean `text`, and the predictor's columns.
        target: The class.
        steps: Points of the path at which gradients are taken; more are more exact.

    Raises:
        ServingError: The model reads no text, or its engine gives no gradients.
    """
    text = without_surrogates(frame["text"].iloc[0])
    code = predictor.classes.index(target)
    engine = predictor.engine
    if isinstance(engine, TfidfEngine):
        parts, error = engine.classifier.attributions(text, code)
    elif not isinstance(engine, TorchEngine):
        raise ServingError("only the engine torch can explain a prediction")
    elif not engine.network.reads_text or predictor.tokenizer is None:
        raise ServingError(
            "this model reads features of the text and not its words: none can be explained"
        )
    else:
        tabular = np.empty((1, 0), dtype=np.float32)
        if predictor.features is not None:
            tabular = predictor.features.transform(frame)
        encoding = predictor.tokenizer.encode(text)
        attributions, error = _integrate(
            engine.network,
            encoding.ids,
            special=encoding.special_tokens_mask,
            pad_id=predictor.pad_id,
            tabular=torch.from_numpy(tabular),
            code=code,
            steps=steps,
        )
        parts = [
            (start, end, attribution)
            for (start, end), attribution in zip(encoding.offsets, attributions, strict=True)
        ]
    return Explanation(
        text=text, target=target, words=_words(text, parts), completeness_error=abs(error)
    )


def _integrate(
    network: "Network",
    ids: Sequence[int],
    *,
    special: Sequence[int],
    pad_id: int,
    tabular: Tensor,
    code: int,
    steps: int,
) -> tuple[list[float], float]:
    """Attributions of the tokens, and by how much their sum is wrong."""
    # It takes a second to import, and most requests ask for no explanation.
    from captum.attr import LayerIntegratedGradients

    encoder: Any = network.get_submodule("encoder")
    embedding = encoder.backbone.get_input_embeddings()
    device = embedding.weight.device
    ids_1T = torch.tensor([ids], device=device)
    special_1T = torch.tensor([special], dtype=torch.bool, device=device)
    pad_1T = torch.full_like(ids_1T, pad_id)

    def logits(ids_BT: Tensor, mask_BT: Tensor, tabular_BF: Tensor) -> Tensor:
        logits_BC: Tensor = network(ids_BT, mask_BT, tabular_BF)
        return logits_BC - logits_BC.mean(dim=1, keepdim=True)

    attributions_1TD, error = LayerIntegratedGradients(logits, embedding).attribute(
        inputs=ids_1T,
        baselines=torch.where(special_1T, ids_1T, pad_1T),
        additional_forward_args=(torch.ones_like(ids_1T), tabular.to(device)),
        target=code,
        n_steps=steps,
        internal_batch_size=_STEPS_PER_BATCH,
        return_convergence_delta=True,
    )
    return attributions_1TD.sum(dim=-1).squeeze(0).tolist(), float(error)


def _words(text: str, parts: Sequence[_Part]) -> list[Word]:
    spans = [found.span() for found in _WORD.finditer(text)]
    sums = np.zeros(len(spans))
    starts = [start for start, _ in spans]
    for _, end, attribution in parts:
        # By its last character: a part may begin with the space before its word.
        number = int(np.searchsorted(starts, end - 1, side="right")) - 1
        sums[max(number, 0)] += attribution
    return [
        Word(text=text[start:end], start=start, end=end, attribution=float(total))
        for (start, end), total in zip(spans, sums, strict=True)
    ]
