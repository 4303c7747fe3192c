"""The page on phones, in both themes, by keyboard and for those who do not see it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.slow

Service = Any
Visit = Callable[..., Any]
TEXT = "Bombshell: Marta Norrevik says main pension fund in Budapest put thousands at risk"


ELEMENTS = """() => [...document.querySelectorAll('body *')].filter(e =>
    e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length
    && !e.closest('.sr-only, .visually-hidden, [aria-hidden=true]')
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))"""

CONTRASTS = (
    """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a));
  };
  const background = e => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) {
      const c = parse(getComputedStyle(p).backgroundColor);
      if (c.length) layers.push(c);
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const luminance = c => {
    const [r, g, b] = c.map(
      v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return ("""
    + ELEMENTS
    + """)().map(e => {
    const style = getComputedStyle(e);
    const under = background(e);
    const ink = luminance(over(parse(style.color), under)), behind = luminance(under);
    const pair = [Math.max(ink, behind), Math.min(ink, behind)];
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), large ? 3 : 4.5, e.tagName, e.className,
            e.textContent.trim().slice(0, 40)];
  });
}"""
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_themes(
    service: Service, visit: Visit, scheme: str
) -> None:
    page = visit(service, color_scheme=scheme)

    def check() -> None:
        page.wait_for_timeout(400)
        found = page.evaluate(CONTRASTS)
        assert len(found) > 10
        assert [each for each in found if each[0] < each[1]] == []

    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
    check()
    page.read(TEXT)
    page.get_by_text("Words as a list").click()
    page.locator("#feedback button").first.click()
    expect(page.locator("#thanks")).to_contain_text("Thank you")
    check()
    service.behave(status=500)
    page.ask("a fault")
    expect(page.locator("#verdict [role=alert]")).to_be_visible(timeout=15_000)
    check()
    service.behave()
    page.get_by_role("tab", name="A table").click()
    page.upload(30)
    expect(page.locator("#result")).to_contain_text("30 rows predicted.")
    check()


def test_nothing_is_too_wide_for_a_phone(service: Service, visit: Visit) -> None:
    page = visit(service, width=375, has_touch=True, is_mobile=True)
    assert not page.sideways()
    long = "Donaudampfschiff" * 20
    page.read(f"{long} {TEXT}")
    page.get_by_text("Words as a list").click()
    assert not page.sideways()
    service.behave(
        answer={
            "label": long,
            "probabilities": {long: 0.6, "b": 0.4},
            "unsure": False,
            "model_version": long,
        }
    )
    page.ask("long names")
    expect(page.locator("#verdict h2")).to_have_text(f"Likely {long}")
    assert not page.sideways()
    service.behave()
    page.get_by_role("tab", name="A table").click()
    assert not page.sideways()
    table = f"text,other\n{long},x\n{TEXT},y\n"
    page.locator("#upload input").set_input_files(
        {"name": f"{long[:100]}.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    expect(page.locator("#result")).to_contain_text("2 rows predicted.")
    assert not page.sideways()
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 24  # to be hit by a finger


FOCUSED = """() => {
  const e = document.activeElement;
  const style = getComputedStyle(e);
  const name = e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText;
  return [e.tagName, name.trim().slice(0, 30),
          style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
}"""


def test_the_keyboard_is_enough(service: Service, visit: Visit) -> None:
    page = visit(service)
    # From the start: a browser that is asked for it in the same moment may miss one.
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # noqa: PLW0108 no builtin

    def tab() -> tuple[str, str]:
        page.keyboard.press("Tab")
        tag, name, outlined = page.evaluate(FOCUSED)
        assert outlined, f"the focus on {tag} {name} cannot be seen"
        return tag, name

    assert [tab() for _ in range(8)] == [
        ("A", "API"),
        ("BUTTON", "One text"),
        ("BUTTON", "A table"),
        ("TEXTAREA", "Headline"),
        ("BUTTON", "Check"),
        ("BUTTON", "Bombshell: rigged laboratory re"[:30]),
        ("BUTTON", "Proposed library roof in Jakarta"[:30]),
        ("BUTTON", "Watch: jaw-dropping river clean-up"[:30]),
    ]
    page.locator("#text textarea").focus()
    page.keyboard.type(TEXT)
    page.keyboard.press("Enter")
    expect(page.locator("#words .marked")).to_have_text(TEXT)
    assert [tab() for _ in range(5)] == [
        ("BUTTON", "Check"),
        ("SUMMARY", "Words as a list"),
        ("BUTTON", "Correct"),
        ("BUTTON", "Wrong"),
        ("BUTTON", "Unsure"),
    ]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#thanks")).to_have_text("Thank you: noted as wrong.")
    page.get_by_role("tab", name="A table").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#upload button")).to_be_visible()
    assert tab() == ("TEXTAREA", "Column of the text")
    assert tab() == ("BUTTON", "Click to upload or drop files")
    page.keyboard.press("Enter")
    for _ in range(100):
        if choosers:
            break
        page.wait_for_timeout(100)
    choosers[0].set_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"text\nsome words\n"}
    )
    expect(page.locator("#result")).to_contain_text("1 row predicted.")
    for _ in range(12):
        if tab()[1].startswith("Download"):
            break
    with page.expect_download():
        page.keyboard.press("Enter")


def test_screen_readers_are_told(service: Service, visit: Visit) -> None:
    page = visit(service)
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("textbox", name="Headline")).to_be_visible()
    live = page.locator("#verdict [aria-live=polite]")
    expect(live).to_have_count(1)
    # It is there before it says something, and stays the same: otherwise nobody hears it.
    handle = live.element_handle()
    page.read(TEXT)
    page.read("another text")
    assert live.evaluate("(now, before) => now === before", handle)
    expect(live).to_contain_text("The model gives")
    expect(page.locator("#thanks [aria-live=polite]")).to_have_count(1)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, textarea')].filter(e =>
        e.checkVisibility() && !e.closest('[aria-hidden=true]')
        && !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length)
        ).map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_nothing_of_gradio_is_left_to_see(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.read(TEXT)
    text = page.locator("body").inner_text()
    for name in ("Gradio", "Settings", "Use via API", "Flag", "Share"):
        assert name not in text
    assert (
        page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length")
        == 0
    )
    assert page.context.cookies() == []


def test_without_javascript_it_says_so(service: Service, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(service.address)
    # Nothing but what it says then has this link.
    expect(page.get_by_role("link", name="API")).to_be_visible()
    context.close()
