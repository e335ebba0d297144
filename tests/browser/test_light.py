"""Pages are light and hold still: bytes without frames, layout shift, nothing from elsewhere."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from bench.pages import OBSERVE, weigh
from service.db.session import Database
from service.db.tables import AnalysisState, Role, Study
from tests.review import ward

HEAVIEST = 250_000  # bytes, without frames


@pytest.mark.parametrize("path", ["/worklist", "/worklist?tab=all", "/studies/{uid}", "/second-reads"])
@pytest.mark.parametrize("width", [1280, 1024, 320])
def test_pages_are_light_and_hold_still(visit: Callable[..., object], db: Database, path: str, width: int) -> None:
    uids = [ward.admit(db, number) for number in range(1, 4)]
    page = visit(width=width)
    page.add_init_script(OBSERVE)
    elsewhere = []
    page.on("request", lambda request: "127.0.0.1" not in request.url and elsewhere.append(request.url))
    sent, shift, first = weigh(page, path.replace("{uid}", uids[1]))
    print(f"{path} at {width} px: {sent / 1000:.0f} kB, shift {shift:.4f}, first frame {first or 0:.0f} ms")
    assert sent <= HEAVIEST
    assert shift <= 0.02
    assert [url for url in elsewhere if not url.startswith(("blob:", "data:"))] == []


@pytest.mark.parametrize("path", ["/worklist?tab=all", "/studies/{uid}", "/second-reads"])
@pytest.mark.parametrize("width", [1280, 640, 320])  # 640 is 1280 at 200 % zoom
def test_nothing_is_cut_off_sideways(visit: Callable[..., object], db: Database, path: str, width: int) -> None:
    uid = ward.admit(db, 1)
    page = visit(width=width, height=640)
    page.goto(path.replace("{uid}", uid))
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for target in page.locator("#decide button.wide, #filters select, .tabs a").all():
        box = target.bounding_box()
        if box is not None:
            assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1


@pytest.mark.parametrize("path", ["/flow", "/models", "/profile/second-factor", "/users", "/studies/{uid}"])
def test_long_words_fit_a_narrow_screen(visit: Callable[..., object], db: Database, path: str) -> None:
    held = ward.Picture(
        ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder for 1.2.840.10008.1.2.4.110."
    )
    uid = ward.admit(db, 1, name="SCHMIDT-VON WOLFENSTEINHAUSEN^Maximiliane Theodora", pictures=[held])
    page = visit(Role.ADMIN, name="an-administrator-with-a-long-name@hospital.example", width=320, height=640)
    page.goto(path.replace("{uid}", uid))
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for target in page.locator("main h1, main form label, main form button:visible").all():
        box = target.bounding_box()
        if box is not None and not target.evaluate("each => each.closest('.table-wrap')"):
            assert box["x"] >= 0 and box["x"] + box["width"] <= 321, target.inner_text()


@pytest.mark.parametrize("width", [1280, 820, 390])
def test_what_a_row_says_is_not_cut_off(visit: Callable[..., object], db: Database, width: int) -> None:
    ward.admit(db, 1, name="LONGENOUGH^Jane", description="Breast ultrasound, left, lesion measurement")
    with db.begin() as session:
        session.execute(update(Study).values(conflict=True, patient_id="CLINIC-NORTH-44182"))
    page = visit(width=width)
    page.goto("/worklist")
    cell = page.locator("#rows .exam").bounding_box()
    tag = page.locator("#rows .exam .tag").bounding_box()
    assert cell["x"] <= tag["x"] and tag["x"] + tag["width"] <= cell["x"] + cell["width"]
    assert cell["y"] <= tag["y"] and tag["y"] + tag["height"] <= cell["y"] + cell["height"]
    assert page.locator("#rows .id").evaluate("each => each.getClientRects().length") == 1, "an ID is read in one piece"


@pytest.mark.parametrize("path", ["/deliveries", "/archive", "/users", "/tokens", "/audit", "/self-test", "/reports"])
def test_headings_keep_their_words_whole(visit: Callable[..., object], path: str) -> None:
    page = visit(Role.ADMIN, width=320, height=640)
    page.goto(path)
    assert page.locator("main h1").first.evaluate("each => each.getBoundingClientRect().height") <= 30


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_report_is_ink_on_paper(visit: Callable[..., object], db: Database, theme: str) -> None:
    """Printed by the browser, in whatever theme: nothing to press, and no column cut off."""
    ward.admit(db, 1)
    page = visit(theme=theme, width=720)
    page.goto("/reports")
    page.wait_for_selector(".chart canvas")
    assert page.is_visible(".bar")
    page.emulate_media(media="print")
    assert not page.is_visible(".bar") and not page.is_visible("text=XLSX") and page.is_visible("#rates")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.equation strong')).color") == "rgb(0, 0, 0)"
    wide = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('#rates'))"
    assert page.evaluate(wide) <= 0
