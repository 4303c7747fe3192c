"""A TorchServe handler in the manner of TorchServe's Hugging Face example.

One text a request; each is tokenised by itself and padded to a fixed length, and the batch
is joined row by row. Written anew for this project's network; its tabular features, which the
example does not have, are computed for each request too. The example logs and prints every
text and prediction: this handler does not.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast
from ts.torch_handler.base_handler import BaseHandler

from fakenews.predictor import Predictor

# As in the example's settings.
_MAX_LENGTH = 150


class ExampleHandler(BaseHandler):  # type: ignore[misc]
    """Answers each request with the probabilities of its text."""

    def initialize(self, context: Any) -> None:
        """Load the bundle that the environment names."""
        del context
        torch.set_num_threads(int(os.environ["THREADS"]))
        self.predictor = Predictor.load(os.environ["BUNDLE"], engine="torch")
        self.network: Any = self.predictor.engine.network
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(Path(os.environ["BUNDLE"]) / "tokenizer.json"),
            pad_token="[PAD]",  # noqa: S106
            pad_token_id=self.predictor.pad_id,
        )
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> tuple[torch.Tensor, ...]:
        """Token ids, attention masks and features of a batch, a row a request."""
        ids, masks, features = None, None, None
        for request in data:
            text = request.get("data") or request.get("body")
            if isinstance(text, bytes | bytearray):
                text = text.decode("utf-8")
            (text,) = self.predictor.cleaning([text]).texts
            tokens = self.tokenizer(
                text,
                max_length=_MAX_LENGTH,
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            row = torch.empty((1, 0))
            if self.predictor.features is not None:
                frame = pd.DataFrame({"text": [text]}, dtype=object)
                row = torch.from_numpy(self.predictor.features.transform(frame))
            if ids is None or masks is None or features is None:
                ids, masks, features = tokens["input_ids"], tokens["attention_mask"], row
            else:
                ids = torch.cat((ids, tokens["input_ids"]), 0)
                masks = torch.cat((masks, tokens["attention_mask"]), 0)
                features = torch.cat((features, row), 0)
        assert ids is not None  # noqa: S101 there is a request
        assert masks is not None  # noqa: S101
        assert features is not None  # noqa: S101
        return ids, masks, features

    @torch.inference_mode()
    def inference(self, data: tuple[torch.Tensor, ...]) -> list[dict[str, float]]:  # type: ignore[override]
        """Probabilities by class of each row."""
        logits = self.network(*data)
        found = []
        for row in range(logits.shape[0]):
            one = self.predictor.calibration.apply(logits[row : row + 1].double().numpy())[0]
            found.append(dict(zip(self.predictor.classes, one.tolist(), strict=True)))
        return found

    def postprocess(self, data: list[dict[str, float]]) -> list[dict[str, float]]:
        """Nothing is left to do."""
        return data
