"""The published pages in a real browser: at the width of a phone and of a desk, and by keyboard."""

import shutil

import pytest
from support.tracked_reports import REPORTS

PAGES = ["index.html", *(f"{report.name}/index.html" for report in REPORTS)]
WIDTHS = (390, 1280)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOCUSABLE = "a[href], summary, video, [tabindex='0']"
SEEN = f"""() => [...document.querySelectorAll("{FOCUSABLE}")].filter(e => e.checkVisibility())"""
FOCUSED = """() => {
  const style = getComputedStyle(document.activeElement);
  const box = document.activeElement.getBoundingClientRect();
  return {
    place: window.seen.indexOf(document.activeElement),
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""
SCROLLING = """() => [...document.querySelectorAll('body *')].filter(e =>
    e.checkVisibility() && e.scrollWidth > e.clientWidth &&
    getComputedStyle(e).overflowX === 'auto')"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture(params=WIDTHS, ids=lambda width: f"{width} pixels")
def open_page(browser, request, site):
    """A function that opens a page of the site in a window of one of the widths."""
    window = browser.new_page(viewport={"width": request.param, "height": 800})
    window.said, window.asked = [], []
    window.on("console", lambda message: window.said.append(message.text))
    window.on("pageerror", lambda error: window.said.append(str(error)))
    window.on("request", lambda asked: window.asked.append(asked.url))

    def opened(page):
        window.goto((site / page).as_uri())
        return window

    yield opened
    window.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_as_wide_as_its_window_complains_of_nothing_and_loads_no_other_site(
    open_page, page, site
):
    window = open_page(page)
    wide, given = window.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide == given
    assert window.said == []
    inside = ("data:", f"{(site / page).parent.as_uri()}/")
    assert all(address.startswith(inside) for address in window.asked)
    shown = (
        "[...document.images].every(i => i.decode && (i.naturalWidth > 0 || !i.checkVisibility()))"
    )
    assert window.evaluate(shown)


@pytest.mark.parametrize("page", PAGES)
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(open_page, page):
    window = open_page(page)
    count = window.evaluate(f"() => (window.seen = ({SEEN})()).length")
    assert count > 0
    places = []
    while len(places) < 40 * count and (not places or places[-1] != count - 1):
        window.keyboard.press("Tab")
        focused = window.evaluate(FOCUSED)
        assert focused["outline"], focused
        assert focused["inside"], focused
        places.append(focused["place"])  # a video has several stops
    assert list(dict.fromkeys(places)) == list(range(count))


@pytest.mark.parametrize("page", PAGES)
def test_what_scrolls_sideways_can_be_scrolled_with_the_keyboard(open_page, page):
    window = open_page(page)
    for thing in window.evaluate_handle(SCROLLING).get_properties().values():
        element = thing.as_element()
        if element.evaluate("e => e.tabIndex < 0"):  # links in it bring it along
            assert element.query_selector_all("a[href]")
            continue
        element.focus()
        window.keyboard.press("ArrowRight")
        window.wait_for_function("e => e.scrollLeft > 0", arg=element)
