"""What a bundle remembers of its training."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakenews.bundle import read_bundle
from fakenews.errors import ConfigError
from fakenews.inference.settings import data_setting


def test_what_is_given_wins_and_the_bundle_knows_the_rest(columns_bundle: Path) -> None:
    content = read_bundle(columns_bundle)
    assert data_setting(content, "text", "title") == "title"
    assert data_setting(content, "text", None) == "headline"
    assert data_setting(content, "label_names", None) is None


def test_what_nobody_says(columns_bundle: Path) -> None:
    content = replace(read_bundle(columns_bundle), provenance={})
    with pytest.raises(ConfigError, match="give text=VALUE"):
        data_setting(content, "text", None)
