"""FastAPI with a transformers pipeline, as most tutorials have it.

    python benchmarks/serving_pipeline.py make MODEL BUNDLE
    python benchmarks/serving_pipeline.py serve MODEL PORT THREADS
    python benchmarks/serving_pipeline.py expect MODEL TEXTS.json

The bundle's encoder with a plain head of random weights: the model that a pipeline can hold.
It reads no tabular features.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from fakenews.bundle import read_bundle

_PREFIX = "encoder.backbone."


def make(folder: str, bundle: str) -> None:
    """Write the model that the pipeline reads."""
    content = read_bundle(bundle)
    settings = dict(content.model["encoder"]["config"])
    classes = dict(enumerate(content.labels["classes"]))
    config = AutoConfig.for_model(
        settings.pop("model_type"),
        **settings
        | {"id2label": classes, "label2id": {name: code for code, name in classes.items()}},
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    weights = {
        name.removeprefix(_PREFIX): torch.from_numpy(array)
        for name, array in content.weights.items()
        if name.startswith(_PREFIX)
    }
    # The pooling layer before the head is the head's here.
    missing = model.base_model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"the encoder has no {missing.unexpected_keys}")
    model.save_pretrained(folder)
    tokenizer = Path(folder) / "raw_tokenizer.json"
    tokenizer.write_text(str(content.tokenizer), encoding="utf-8")
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer),
        pad_token="[PAD]",  # noqa: S106
        pad_token_id=content.features["pad_id"],
        model_max_length=config.max_position_embeddings,
    ).save_pretrained(folder)


def expect(folder: str, path: str) -> None:
    """Print what the model says of each text, without a pipeline: to check the server by."""
    texts = json.loads(Path(path).read_text(encoding="utf-8"))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    found = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, return_tensors="pt")
            logits = model(tokens["input_ids"], tokens["attention_mask"]).logits
            found.append(logits.softmax(-1)[0].tolist())
    print(json.dumps(found))


def serve(folder: str, port: int, threads: int) -> None:
    """Serve until killed."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    torch.set_num_threads(threads)
    classify = transformers.pipeline("text-classification", model=folder, device="cpu")
    app = FastAPI()

    class Headline(BaseModel):
        text: str

    # Not async: FastAPI runs it in a thread of its pool.
    @app.post("/predict")
    def predict(headline: Headline) -> dict[str, float]:
        found = classify(headline.text, top_k=None, truncation=True)
        return {row["label"]: row["score"] for row in found}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    elif sys.argv[1] == "expect":
        expect(*sys.argv[2:])
    else:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
