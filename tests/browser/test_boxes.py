"""Boxes drawn and corrected in a real browser: by drag, by two clicks, by numbers, by keys alone."""

from collections.abc import Callable

from sqlalchemy import select

from service.db.session import Database
from service.db.tables import Correction, Role
from tests.browser.test_work import awake, until
from tests.review import ward


def open_study(visit: Callable[..., object], db: Database, **person: object):
    uid = ward.admit(db, 1)
    page = visit(**person)
    page.goto(f"/studies/{uid}")
    until(page, "document.querySelector('#legend').textContent.includes('Caliper')")
    until(page, "!document.querySelector('#first-frame')")
    return page


def boxes(db: Database) -> list[tuple[str, tuple[int, ...], bool, bool]]:
    """(kind, box, says that a mark is none, stands)"""
    with db.read() as session:
        return [
            (row.kind, (row.x, row.y, row.width, row.height), row.annotation_id is not None, row.withdrawn_at is None)
            for row in session.scalars(select(Correction).order_by(Correction.id))
        ]


def stage_point(page, x: int, y: int) -> tuple[float, float]:
    """Where a pixel of the frame (320 × 240) lies on the screen when it fits."""
    stage = page.locator("#stage").bounding_box()
    scale = min((stage["width"] - 4) / 320, stage["height"] / 240)
    return (
        stage["x"] + stage["width"] / 2 + (x - 160) * scale,
        stage["y"] + stage["height"] / 2 + (y - 120) * scale,
    )


def near(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 1 for a, b in zip(found, wanted, strict=True))


def test_a_dragged_box_is_kept_and_shown_again(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db)
    page.keyboard.press("a")
    page.mouse.move(*stage_point(page, 200, 150))
    page.mouse.down()
    page.mouse.move(*stage_point(page, 260, 200), steps=5)
    page.mouse.up()
    assert page.input_value("#box-width") == "60"
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#legend').textContent.includes('Body marker')")
    [(kind, box, none, stands)] = boxes(db)
    assert (kind, none, stands) == ("body_marker", False, True) and near(box, (200, 150, 60, 50))
    page.reload()
    until(page, "document.querySelector('#described').textContent.includes('drawn by reviewer')")


def test_two_clicks_draw_a_box_as_well(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db)
    page.click("#box-add")
    page.mouse.click(*stage_point(page, 20, 30))
    page.mouse.click(*stage_point(page, 90, 110))
    page.select_option("#box-kind", "text")
    page.click("#box-save")
    until(page, "document.querySelector('#legend').textContent.includes('Text')")
    [(kind, box, _, _)] = boxes(db)
    assert kind == "text" and near(box, (20, 30, 70, 80))


def test_numbers_and_keys_alone_draw_move_and_resize(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db)
    page.keyboard.press("a")
    for name, value in (("x", 10), ("y", 20), ("width", 30), ("height", 40)):
        page.fill(f"#box-{name}", str(value))
    page.press("#box-height", "Enter")
    until(page, "!document.querySelector('#box-undo').hidden")
    page.keyboard.press("e")
    page.keyboard.press("e")  # the network's caliper, then the box drawn just now
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "5", "Enter"):
        page.keyboard.press(key)
    until(page, "document.querySelector('#legend').textContent.includes('Arrow')")
    drawn, moved = boxes(db)
    assert drawn == ("body_marker", (10, 20, 30, 40), False, False), "the first one stays as history"
    assert moved == ("arrow", (12, 21, 31, 40), False, True)


def test_a_mark_of_the_network_is_said_to_be_none_and_that_is_undone(
    visit: Callable[..., object], db: Database
) -> None:
    page = open_study(visit, db)
    page.mouse.click(*stage_point(page, 60, 80))
    assert page.input_value("#box-kind") == "caliper" and page.input_value("#box-x") == "60"
    page.keyboard.press("Delete")
    until(page, "document.querySelector('#legend').textContent.includes('said to be none')")
    assert boxes(db) == [("caliper", (60, 80, 90, 40), True, True)]
    page.keyboard.press("u")
    until(page, "!document.querySelector('#legend').textContent.includes('said to be none')")
    assert boxes(db) == [("caliper", (60, 80, 90, 40), True, False)]


def test_a_box_that_could_not_be_saved_stays_and_says_so(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db)
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#alert').textContent.includes('not saved')")
    page.context.set_offline(False)
    assert page.is_visible("#box-bar") and boxes(db) == []
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#box-bar').hidden && !document.querySelector('#alert').textContent")
    assert len(boxes(db)) == 1


def test_decisions_wait_while_a_box_is_open(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db)
    awake(page)
    page.keyboard.press("a")
    page.keyboard.press("c")
    until(page, "document.querySelector('#status').textContent.includes('box first')")
    page.keyboard.press("Escape")
    assert page.is_hidden("#box-bar")


def test_a_viewer_draws_nothing(visit: Callable[..., object], db: Database) -> None:
    page = open_study(visit, db, role=Role.VIEWER)
    assert page.locator("#box-add, #box-bar").count() == 0
    page.mouse.click(*stage_point(page, 60, 80))
    assert page.locator(".legend-mark").is_disabled()
