"""A visitor of the page uploads a table, in a real Chromium."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

Service = Any
Visit = Callable[..., Any]
TEXT = "Bombshell: Marta Norrevik says main pension fund in Budapest put thousands at risk"


def test_a_table_is_predicted_and_fetched(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.5)
    page.upload(700)
    bar = page.get_by_role("progressbar", name="Rows predicted")
    expect(bar).to_be_visible()
    expect(page.locator("#progress")).to_contain_text(
        re.compile(r"headlines\.csv: [1-9]\d* of 700 rows"), timeout=60_000
    )
    expect(page.locator("#upload")).to_be_hidden()
    service.behave()
    expect(page.locator("#result")).to_contain_text("700 rows predicted.", timeout=60_000)
    expect(bar).to_be_hidden()
    assert page.locator("#result th").all_inner_texts() == [
        "headline",
        "prediction",
        "fake",
        "real",
    ]
    assert page.locator("#result tbody tr").count() == 10
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the whole table").click()
    assert download.value.suggested_filename == "predictions.csv"
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 701
    assert lines[0].startswith("id,headline,prediction,probability_fake,probability_real")
    # The place for the next one is free.
    page.upload(3)
    expect(page.locator("#result")).to_contain_text("3 rows predicted.")


def test_a_table_can_be_stopped(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.3)
    page.upload(3000)
    expect(page.locator("#progress")).to_contain_text("of 3,000 rows")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#result")).to_have_text("Stopped.")
    expect(page.locator("#upload")).to_be_visible()
    expect(page.locator("#progress")).to_have_text("")
    page.wait_for_timeout(600)  # what was asked already is answered
    before = len(service.asked())
    page.wait_for_timeout(1000)
    assert len(service.asked()) == before


def test_a_table_of_who_has_gone_is_given_up(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.3)
    page.upload(3000)
    expect(page.locator("#progress")).to_contain_text("of 3,000 rows")
    page.close()
    time.sleep(3)
    before = len(service.asked())
    time.sleep(1.5)
    assert len(service.asked()) == before


def test_tables_that_cannot_be_read_say_why(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    upload = page.locator("#upload input")
    wrong = {"name": "a.csv", "mimeType": "text/csv", "buffer": b"one,two\n1,2\n"}
    upload.set_input_files(wrong)
    expect(page.locator("#result [role=alert]")).to_contain_text(
        "a.csv: which column is the text?"
    )
    page.get_by_label("Column of the text").fill("two")
    upload.set_input_files(wrong)
    expect(page.locator("#result")).to_contain_text("1 row predicted.")
    upload.set_input_files({"name": "a.docx", "mimeType": "x/y", "buffer": b"PK"})
    expect(page.locator("#result [role=alert]")).to_contain_text("a.docx")
    # Chromium's driver sends no more at once than that from memory.
    large = service.folder / "large.csv"
    large.write_bytes(b"text\n" + b"x" * 20_100_000)
    upload.set_input_files(large)
    expect(page.locator("#lost")).to_have_text("The file is too large.")
    expect(page.locator("body")).not_to_contain_text("Traceback")
