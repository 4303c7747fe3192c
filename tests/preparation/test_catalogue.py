"""The list of prepared datasets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fakenews.data.storage import Storage
from fakenews.errors import DataError
from fakenews.preparation.catalogue import show

Prepare = Callable[..., Path]


def test_datasets_below_a_folder_are_listed(
    run_prepare: Prepare, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = run_prepare("data.fetch.rows=1000", out="some/one")
    run_prepare("data.fetch.rows=2000", out="some/two")
    (out.parent / "broken").mkdir()
    (out.parent / "broken" / "manifest.json").write_text("{")
    capsys.readouterr()
    show(Storage(out.parent))
    shown = capsys.readouterr().out
    assert "one" in shown
    assert "1,600" in shown
    assert "fake, real" in shown
    assert "broken" not in shown.replace(str(out.parent), "")


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared dataset here"):
        show(Storage(tmp_path))
