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


def test_columns_of_a_prepared_dataset_were_chosen_when_it_was_prepared(
    columns_bundle: Path,
) -> None:
    provenance = {
        "data": {"settings": {"text": "headline", "label": "verdict"}},
        "config": {"data": {"path": "s3://bucket/data"}},
    }
    content = replace(read_bundle(columns_bundle), provenance=provenance)
    assert data_setting(content, "label", None) == "verdict"
