"""What the API takes and gives, for its documentation.

Bodies are read by `requests`, which says what is wrong with each item; these models describe.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_TEXT = {"type": "string", "minLength": 1, "description": "The text to predict."}
_VALUE = {"type": ["string", "number", "boolean", "null"]}


def item_schema(characters: int) -> dict[str, Any]:
    """Of a text with the columns that its model reads beside it."""
    return {
        "type": "object",
        "required": ["text"],
        "properties": {"text": _TEXT | {"maxLength": characters}},
        "additionalProperties": _VALUE,
        "example": {"text": "Minister opens three hospitals in Oslo"},
    }


def predict_schema(characters: int, items: int) -> dict[str, Any]:
    """Of the body of `/predict`."""
    item = item_schema(characters)
    many = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {
                "type": "array",
                "maxItems": items,
                "items": {"anyOf": [{"type": "string"}, item]},
            }
        },
    }
    one = item | {"not": {"required": ["inputs"]}}
    return {"anyOf": [one, many]}


FEEDBACK = {
    "type": "object",
    "required": ["id", "verdict"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "description": "Of the prediction."},
        "verdict": {"enum": ["correct", "wrong", "unsure"]},
        "label": {
            "type": ["string", "null"],
            "description": "The class that it should have been.",
        },
    },
}

TABLE = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "CSV, TSV, JSON Lines (each also with .gz) or Parquet, by its name.",
        },
        "text": {"type": "string", "description": "Column of the text."},
    },
}


class Fault(BaseModel):
    """What is wrong."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people.")
    id: str | None = Field(default=None, description="Of an internal error, as in the log.")


class Error(BaseModel):
    """Why there is no answer."""

    error: Fault


class Prediction(BaseModel):
    """What a model says of a text. It judges style, and does not know what is true."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    id: str = Field(description="Of the prediction, for feedback.")
    label: str = Field(description="The class decided for.")
    probabilities: dict[str, float] = Field(description="Calibrated, of each class.")
    unsure: bool = Field(description="Whether the decision was close.")
    band: float = Field(description="How near to another decision a probability is unsure.")
    truncated: bool = Field(description="Whether the text was too long to be read whole.")
    threshold: float | None = Field(
        default=None, description="Of two classes: from which probability of `positive` on."
    )
    positive: str | None = None
    model: str
    model_version: str
    logged: bool = Field(
        default=True, description="False when the prediction could not be written down."
    )


class Predictions(BaseModel):
    """What a model says of several texts, in order."""

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[Prediction | Error]
    model: str
    model_version: str | None = Field(description="Null when no item could be asked about.")


class Word(BaseModel):
    """A word of the text, and what it adds to the score of the class."""

    text: str
    start: int
    end: int
    attribution: float


class Explanation(BaseModel):
    """A prediction, and what each word adds to it."""

    prediction: Prediction
    target: str = Field(description="The class that is explained.")
    words: list[Word]
    text: str = Field(description="As the model reads it; `start` and `end` count in it.")
    completeness_error: float


class Stored(BaseModel):
    """Feedback was stored."""

    id: str
    stored: Literal[True]


class Health(BaseModel):
    """Whether requests are answered."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[str] = Field(description="What is wrong.")
    model: str | None = None
    model_version: str | None = None
