"""What a visitor of the page is told when it does not work."""

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


def test_what_goes_wrong_is_told_in_plain_words(
    visit: Visit, other: Callable[..., Any]
) -> None:
    service = other({"deadline": 1.0, "access.rate": "8/minute"})
    page = visit(service)
    fault = page.locator("#verdict [role=alert]")
    page.locator("#text textarea").press("Enter")
    expect(fault).to_have_text("Type a text first.")
    expect(page.locator("#feedback")).to_be_hidden()
    page.ask("x" * 100_001)
    expect(fault).to_have_text("The text has 100,001 characters, at most 100,000 are allowed.")
    service.behave(status=500)
    page.ask("one")
    expect(fault).to_have_text("The model does not answer just now. Try again in a moment.")
    service.behave(hang=True)
    page.ask("two")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    expect(fault).to_have_text(re.compile("took too long|busy|does not answer"))
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    service.behave()
    for n in range(6):
        page.ask(f"again {n}")
        page.wait_for_timeout(500)
    expect(page.locator("#lost")).to_have_text(
        re.compile(r"You have asked often in a short time\. Try again in \d+ seconds?\.")
    )
    assert "Error" not in page.locator("body").inner_text()


def test_too_many_at_once_are_told_to_come_again(
    visit: Visit, other: Callable[..., Any]
) -> None:
    service = other({"page.concurrent": 1, "page.waiting": 1, "deadline": 6.0})
    pages = [visit(service) for _ in range(4)]
    service.behave(hang=True)
    for page in pages:
        page.ask("one of many")
    for _ in range(50):
        pages[0].wait_for_timeout(100)
        told = [page.locator("#lost").inner_text() for page in pages]
        if any(told):
            break
    assert set(told) == {"", "Many people are asking just now. Try again in a moment."}


def test_a_server_that_is_gone_and_comes_back(visit: Visit, other: Callable[..., Any]) -> None:
    service = other({})
    page = visit(service)
    page.read("before")
    start = time.monotonic()
    service.stop()
    assert time.monotonic() - start < 15  # no open page holds it up
    page.ask("meanwhile")
    expect(page.locator("#lost")).to_have_text(
        "The server cannot be reached. Check your connection, and try again."
    )
    expect(page.locator(".toast-wrap")).to_be_hidden()
    assert "Error" not in page.locator("body").inner_text()
    page.locator("#text textarea").fill("meanwhile, longer")
    service.start()
    # The page comes anew by itself, with what was typed.
    expect(page.locator("#verdict h2")).to_have_count(0, timeout=30_000)
    expect(page.locator("#text textarea")).to_have_value("meanwhile, longer")
    assert page.read("after")
