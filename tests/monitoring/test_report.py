"""The report as files, as a page and in the terminal."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from fakenews.errors import MonitoringError
from fakenews.monitoring.account import Account
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.report import table, write
from fakenews.monitoring.verdict import Check, Kind, State

Make = Callable[..., Account]

HOSTILE = "<script>alert('$x$')</script> [bold]& \u202ereversed"
ARABIC = "عاجل: وزارة الصحة تنفي خبر إغلاق المدارس"
LONG = "新冠疫苗" * 300
BROKEN = "half a pair: \ud83d"


class Parsed(HTMLParser):
    """The tags of a page that is well formed, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def printed(account: Account) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table(account))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def account(some_account: Make) -> Account:
    return some_account(
        *(0, 0, 0.9, 0.9),
        texts=(HOSTILE, ARABIC, LONG, BROKEN),
        notices=("3 times are in the future: left out.",),
    )


@pytest.fixture(scope="module")
def folder(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("monitoring") / "deep" / "report"
    written = write(account, found)
    assert written[-2:] == [found / "report.html", found / "verdict.json"]
    assert sorted(path for path in found.rglob("*") if path.is_file()) == sorted(written)
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_the_verdict_is_strict_json(account: Account, folder: Path):
    content = json.loads((folder / "verdict.json").read_text("utf-8"))
    assert content == account.verdict.to_json()
    assert content["state"] == "alarm"


def test_the_page_needs_no_other_file(page: str, folder: Path):
    plots = sorted(folder.glob("plots/*.png"))
    assert page.count("data:image/png;base64,") == len(plots) == 10
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import', page)
    for path in plots:
        with Image.open(path) as image:
            image.verify()


def test_others_of_the_machine_cannot_read_it(folder: Path):
    for name in ("report.html", "verdict.json"):
        assert (folder / name).stat().st_mode & 0o007 == 0


def test_the_page_is_well_formed_and_runs_nothing(page: str):
    parsed = Parsed(page)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "b>", "iframe", "link", "object"}
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    policy = next(a for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in str(policy["content"])


def test_texts_are_shown_as_they_are(page: str, account: Account):
    assert {example.text for example in account.examples} <= {HOSTILE, ARABIC, LONG, BROKEN}
    shown = [text for example in account.examples if (text := example.text)]
    parsed = Parsed(page)
    for text in shown:
        seen = text.replace("\ud83d", "?")
        assert (seen if len(seen) <= 400 else f"{seen[:399]}…") in parsed.text
    assert ("bdi", {"dir": "auto"}) in parsed.tags


def test_the_top_says_what_is_the_matter(page: str):
    top = Parsed(page.partition("<h2>")[0].partition("<body>")[2]).text
    assert "Alarm\nTexts have changed.\n" in top
    assert "2026-11-25 12:00 to 2026-11-26 12:00 UTC, 200 predictions" in top
    assert "Model fakenews, version 1a2b." in top


def test_the_sections_come_in_order(page: str):
    found = re.findall(r"<h2>(.*?)</h2>", page)
    expected = [
        *("Alarms", "Warnings", "What was wrong with the log", "When it began", "What moved"),
        *("Performance over time", "Predictions", "Volume, errors and latency", "Counts"),
        *("All checks", "How to read this"),
    ]
    assert [name for name in expected if name in found] == found
    assert "Alarms" in found


def test_what_is_found_is_named(page: str, account: Account):
    for check in account.verdict.checks:
        assert f"<code>{check.key}</code>" in page
    assert "Texts (classifier)</b>: changed in 2 of the last 3 windows" in page
    assert "3 times are in the future: left out." in page
    assert "<bdi>election</bdi>" in page
    assert "Features are as the model reads them" in page
    assert "at most 1% of windows have any check that differs" in " ".join(page.split())
    assert "0.05 for <code>drift</code>" in page


def test_the_same_account_gives_the_same_bytes(account: Account, folder: Path, tmp_path: Path):
    for path in write(account, tmp_path):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path


def test_no_window(no_account: Account, tmp_path: Path):
    write(no_account, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Not judged" in page
    assert "there is no window with predictions" in page
    assert "The log has no predictions." in page
    assert "<img" not in page
    Parsed(page)
    assert json.loads((tmp_path / "verdict.json").read_text())["window"] is None
    assert "NOT JUDGED  Nothing could be judged" in printed(no_account)


def test_a_later_report_replaces_the_plots_too(
    no_account: Account, some_account: Make, tmp_path: Path
):
    one = some_account(0)
    bare = replace(one, totals=[replace(one.totals[0], hourly=(), latency_ms=None)])
    write(bare, tmp_path)
    assert len(list(tmp_path.glob("plots/*.png"))) == 5
    (tmp_path / "kept.txt").write_text("kept")
    write(no_account, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("kept.txt", "plots", "report.html", "verdict.json")
    ]


def test_names_that_look_like_markup(no_account: Account, tmp_path: Path):
    check = Check(
        key="drift.tabular.<i>x</i>",
        kind=Kind.DRIFT,
        state=State.UNKNOWN,
        message=f"{HOSTILE}: the log does not say",
    )
    verdict = replace(no_account.verdict, model=HOSTILE, checks=(check,))
    named = replace(no_account, verdict=verdict)
    write(named, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert html.escape("<i>x</i>") in page
    assert not {"script", "i"} & {tag for tag, _ in Parsed(page).tags}
    assert HOSTILE in printed(named)


def test_numbers_that_are_none_are_missing(no_account: Account, tmp_path: Path):
    check = Check(
        key="decay.measured.macro_f1",
        kind=Kind.DECAY,
        state=State.OK,
        message="",
        value=float("nan"),
        threshold=float("-inf"),
        p_value=0.5,
    )
    verdict = replace(no_account.verdict, checks=(check,))
    write(replace(no_account, verdict=verdict), tmp_path)
    (found,) = json.loads((tmp_path / "verdict.json").read_text())["checks"]
    assert (found["value"], found["threshold"], found["p_value"]) == (None, None, 0.5)


def test_guide_of_other_policies(no_account: Account, tmp_path: Path):
    policy = Policy(needed=1, of=2, false_alarms=0.002)
    write(replace(no_account, policy=policy), tmp_path)
    page = " ".join((tmp_path / "report.html").read_text("utf-8").split())
    assert "A check that differs is an alarm, and stays one for 2 windows." in page
    assert "at most 0.2% of windows" in page
    assert "Any effect counts." in page


def test_terminal_shows_what_is_not_ok(account: Account):
    shown = printed(account)
    assert shown.startswith("ALARM  ")
    assert "drift.embedding.classifier" in shown
    assert "Texts (classifier): changed in 2 of the last 3 windows" in shown
    assert "decay.estimated.accuracy" not in shown
    assert "3 times are in the future: left out." in shown
    ok = account.counts[State.OK]
    assert f", {ok} ok." in shown


def test_terminal_of_a_quiet_window_is_short(some_account: Make):
    lines = printed(some_account(0, labelled=0)).splitlines()
    assert lines[0].startswith("OK  Nothing has changed: all ")
    assert re.fullmatch(r"Checks: \d+ ok\.", lines[-1].strip())
    assert len(lines) == 5


def test_folder_that_cannot_be_made(no_account: Account, tmp_path: Path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(MonitoringError, match=r"cannot write the report .*; choose a folder"):
        write(no_account, blocker / "report")


def test_a_failure_leaves_nothing_half_written(no_account: Account, tmp_path: Path):
    (tmp_path / "plots").write_text("a file where the folder should be")
    with pytest.raises(MonitoringError, match="File exists"):
        write(no_account, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]
