"""A visitor of the page asks about a text, in a real Chromium."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

Service = Any
Visit = Callable[..., Any]
TEXT = "Bombshell: Marta Norrevik says main pension fund in Budapest put thousands at risk"


def test_a_headline_is_judged(service: Service, visit: Visit) -> None:
    page = visit(service)
    expect(page.page).to_have_title("Does it read like fake news?")
    sure = {"label": "fake", "probabilities": {"fake": 0.91, "real": 0.09}, "unsure": False}
    service.behave(answer=sure)
    assert page.read(TEXT) == "Likely fake"
    expect(page.locator("#verdict")).to_contain_text(
        "The model gives fake a probability of 91%."
    )
    expect(page.locator("#verdict")).to_contain_text("fakenews ab12cd34ef56")
    bars = page.get_by_role("img")
    expect(bars).to_have_accessible_name(
        "Probabilities: fake 91%, real 9%. Unsure where real is between 40% and 60%."
    )
    fill, band = page.locator("#verdict .chosen .fill"), page.locator("#verdict .chosen .band")
    track = page.locator("#verdict .chosen .track").bounding_box()
    filled, banded = fill.bounding_box(), band.bounding_box()
    assert track is not None
    assert filled is not None
    assert banded is not None
    assert filled["width"] / track["width"] == pytest.approx(0.91, abs=0.01)
    assert (banded["x"] - track["x"]) / track["width"] == pytest.approx(0.4, abs=0.01)
    assert banded["width"] / track["width"] == pytest.approx(0.2, abs=0.01)
    assert page.locator("#words mark").count() > 4
    page.get_by_text("Words as a list").click()
    expect(page.locator("#words table")).to_be_visible()
    assert [line["label"] for line in service.lines("predictions")][-1] == "fake"


def test_the_button_and_the_examples_ask_too(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.locator("#text textarea").fill("Some text")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#words .marked")).to_have_text("Some text")
    example = page.get_by_role("button", name="Proposed library roof")
    text = example.inner_text()
    example.click()
    expect(page.locator("#words .marked")).to_have_text(text)
    expect(page.locator("#text textarea")).to_have_value(text)


def test_the_verdict_does_not_wait_for_its_words(service: Service, visit: Visit) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 3.0})
    page.ask("slowly")
    expect(page.locator("#verdict h2")).to_be_visible()
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    expect(page.locator("#words .marked")).to_have_text("slowly")


def test_the_words_are_those_of_the_last_text(service: Service, visit: Visit) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 2.0})
    page.ask("slowly")
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    assert page.read("at once")
    page.wait_for_timeout(2500)
    expect(page.locator("#words .marked")).to_have_text("at once")


def test_the_same_text_can_be_asked_again(service: Service, visit: Visit) -> None:
    page = visit(service)
    answer = page.locator("#answer")
    for _ in range(3):
        page.read("the same text")
        expect(answer).to_have_attribute("aria-busy", "false")
    for _ in range(2):
        page.ask("")
        expect(page.locator("#verdict [role=alert]")).to_have_text("Type a text first.")
        expect(answer).to_have_attribute("aria-busy", "false")


def test_words_of_an_earlier_text_do_not_come_after_a_fault(
    service: Service, visit: Visit
) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 1.5})
    page.ask("slowly")
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    page.ask("")
    expect(page.locator("#verdict [role=alert]")).to_have_text("Type a text first.")
    page.wait_for_timeout(2000)
    expect(page.locator("#words")).to_have_text("")


def test_many_classes(service: Service, visit: Visit) -> None:
    page = visit(service)
    answer = {
        "label": "sports",
        "probabilities": {"politics": 0.25, "sports": 0.4, "health": 0.2, "weather": 0.15},
        "unsure": False,
        "threshold": None,
        "positive": None,
    }
    service.behave(answer=answer)
    assert page.read("many classes") == "Possibly sports"
    assert page.locator("#verdict .name").all_inner_texts() == [
        "sports",
        "politics",
        "health",
        "weather",
    ]
    assert page.locator("#verdict rect.band[x]").count() == 1
    service.behave(answer=answer | {"unsure": True})
    assert page.read("many classes again") == "Unsure"


def test_long_texts_say_that_they_were_cut(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.ask("word " * 400)
    expect(page.locator("#verdict .notice")).to_contain_text("only its start was judged")


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.ran = 1</script> news",
        "<img src=x onerror='window.ran=1'> news",
        "</p></section><iframe srcdoc='<script>parent.ran=1</script>'></iframe> news",
        "${window.ran=1} {{window.ran=1}} `${window.ran=1}` news",
        "<svg onload=window.ran=1> &lt;b&gt; <b>news</b>",
    ],
)
def test_what_people_type_is_shown_and_not_run(
    service: Service, visit: Visit, text: str
) -> None:
    page = visit(service)
    page.read(text)
    service.behave(
        answer={
            "label": text,
            "probabilities": {text: 0.8, "x": 0.2},
            "unsure": False,
            "model_version": text,
        }
    )
    page.ask(f"{text} once more")
    expect(page.locator("#verdict h2")).to_have_text(f"Likely {text}")
    page.get_by_role("tab", name="A table").click()
    table = f'text,"{text}"\n"{text}",x\n'
    page.locator("#upload input").set_input_files(
        {"name": "<b>.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    expect(page.locator("#result td").first).to_have_text(text)
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert page.locator("iframe, #answer img, #answer b, #result b, #result img").count() == 0


def test_people_say_whether_it_was_right(service: Service, visit: Visit) -> None:
    page = visit(service)
    expect(page.locator("#feedback")).to_be_hidden()
    for name in ("Correct", "Wrong", "Unsure"):
        page.read(f"judged as {name}")
        button = page.locator("#feedback").get_by_role("button", name=name)
        button.click()
        expect(page.locator("#thanks")).to_have_text(f"Thank you: noted as {name.lower()}.")
        for each in page.locator("#feedback button").all():
            expect(each).to_be_disabled()
        last = service.lines("feedback")[-1]
        assert last["verdict"] == name.lower()
        assert last["id"] == service.lines("predictions")[-1]["id"]
    # Of the next text nothing has been said yet.
    page.read("another")
    expect(page.locator("#thanks")).to_have_text("")
    expect(page.locator("#feedback button").first).to_be_enabled()
