"""Each kind by itself, undegraded: it draws, its label is where it changed the frame, held-out styles are apart."""

from __future__ import annotations

import numpy as np
import pytest

from models.corruption import (
    ARROW,
    BODY_MARKER,
    CALIPER,
    COLOR_BOX,
    TEXT,
    arrows,
    body_markers,
    calipers,
    color_boxes,
    cutting,
    furniture,
    mark,
    screens,
    texts,
)
from models.corruption.body_outlines import OUTLINES
from models.corruption.degradation import VISIBLE, Degradation
from models.corruption.doppler import MAPS, any_stops, stops_of
from models.corruption.layouts import Beam, Fan, Layout
from models.corruption.strokes import Canvas, Stroke, dashed, line
from models.corruption.styles import (
    HELD_OUT_COLOURS,
    HELD_OUT_DASHES,
    Pen,
    any_colour,
    any_dashes,
    mark_colour,
    pen,
    split,
)


def ink(*, held_out: bool = False, fineness: int = 4) -> Pen:
    return Pen(
        scale=1.0, width=1.0, fineness=fineness, alpha=1.0, edge=False, colour=(255, 255, 255), held_out=held_out
    )


def canvas(height: int = 300, width: int = 400, level: int = 40) -> Canvas:
    return Canvas(np.full((height, width, 3), level, np.uint8))


def layout(board: Canvas, held_out: bool = False) -> Layout:
    return Layout([(0, 0, board.width, board.height)], [None], held_out)


def draw(kind: int, board: Canvas, rng: np.random.Generator, held_out: bool) -> None:
    own = pen(rng, 1.0, held_out)
    if kind == BODY_MARKER:
        body_markers.draw(board, rng, own, kind, layout(board, held_out))
    elif kind == CALIPER:
        calipers.draw(board, rng, own, kind, TEXT, layout(board, held_out))
    elif kind == COLOR_BOX:
        color_boxes.draw(board, rng, own, kind, layout(board, held_out))
    elif kind == TEXT:
        texts.draw(board, rng, own, kind, layout(board, held_out))
    else:
        arrows.draw(board, rng, own, kind)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", [BODY_MARKER, CALIPER, COLOR_BOX, TEXT, ARROW])
def test_labels_are_where_the_frame_changed(kind: int, held_out: bool) -> None:
    drawn = 0
    for seed in range(30):
        board = canvas()
        clean = board.image.copy()
        draw(kind, board, np.random.default_rng(seed), held_out)
        change = np.abs(board.image.astype(int) - clean).max(axis=2)
        labels = Degradation().labels(board, clean)
        assert set(np.unique(labels)) <= {0, kind, TEXT}
        # Every labelled pixel changed visibly; an unlabelled one is untouched or a faint fringe of a stroke.
        assert (change[labels > 0] >= VISIBLE).all()
        assert (board.coverage[(labels == 0) & (change >= VISIBLE)] < 0.36 * 255).all()
        assert (change[board.coverage == 0] == 0).all()
        drawn += (labels == kind).any()
    assert drawn >= 25


@pytest.mark.parametrize("family", list(OUTLINES))
def test_every_body_marker_family_draws_within_its_box(family: str) -> None:
    reach = np.abs(np.vstack([path.points for path in OUTLINES[family]]))
    assert reach.max() <= 0.62
    board = canvas()
    # A figure stands anywhere, so look for one that was not cut off.
    for seed in range(8):
        body_markers.draw(board, np.random.default_rng(seed), ink(), BODY_MARKER, layout(board), family)
    assert (board.kind == BODY_MARKER).sum() > 60


def test_there_are_at_least_forty_families_and_they_differ() -> None:
    assert len(split(body_markers.FAMILIES, held_out=False)) >= 40
    pictures = set()
    for family in OUTLINES:
        board = canvas(100, 100)
        frame = body_markers.Frame(np.array([50.0, 50.0]), np.array([90.0, 90.0]), 0.0)
        board.draw(
            [Stroke(frame(path.points), 1.0, path.closed) for path in OUTLINES[family]], (255, 255, 255), BODY_MARKER
        )
        pictures.add(board.image.tobytes())
    assert len(pictures) == len(OUTLINES)


@pytest.mark.parametrize("name", calipers.GLYPHS)
@pytest.mark.parametrize("fineness", [1, 4])
def test_every_caliper_glyph_draws_about_its_size(name: str, fineness: int) -> None:
    board = canvas(60, 60)
    board.draw(calipers.glyph(name, 30, 30, 16, 1.0, 20), (255, 255, 255), CALIPER, fineness=fineness)
    rows, columns = np.nonzero(board.kind)
    assert 5 <= max(np.ptp(rows), np.ptp(columns)) <= 26


def test_made_up_end_marks_are_about_their_size_and_differ() -> None:
    shapes = [np.vstack(calipers.made_up(np.random.default_rng(seed))) for seed in range(60)]
    assert all(0.6 <= np.abs(points).max() <= 1.25 for points in shapes)
    assert len({points.round(2).tobytes() for points in shapes}) == len(shapes)


def test_made_up_arrows_point_from_their_tip_backwards() -> None:
    for seed in range(60):
        strokes = arrows.made_up(np.random.default_rng(seed), 1.0)
        points = np.vstack([stroke.points for stroke in strokes])
        assert points[:, 0].max() <= 0.05
        assert -1.8 <= points[:, 0].min() <= -0.18
        assert np.abs(points[:, 1]).max() <= 0.8


def test_made_up_arrows_have_one_head() -> None:
    feathered = 0
    for seed in range(400):
        for stroke in arrows.made_up(np.random.default_rng(seed), 1.0):
            if stroke.points[:, 0].max() <= -0.5 and len(stroke.points) == 3:
                ends, tip = stroke.points[[0, 2], 0], stroke.points[1, 0]
                assert (ends < tip).all(), "a second head is kept for testing"
                feathered += 1
    assert feathered > 10


def test_held_out_styles_are_all_of_the_tables() -> None:
    for seed in range(80):
        rng = np.random.default_rng(seed)
        assert not calipers.style(rng, pen(rng, 1.0, True)).own


@pytest.mark.parametrize("kind", [BODY_MARKER, CALIPER, TEXT, ARROW])
def test_a_cut_goes_through_a_mark_near_the_edge(kind: int) -> None:
    labels = np.zeros((200, 300), np.uint8)
    labels[150:190, 250:290] = kind
    for seed in range(20):
        window = cutting.through_a_mark(np.random.default_rng(seed), labels, (kind,))
        assert window is not None
        left = (labels[window] == kind).sum()
        assert 0 < left < (labels == kind).sum()
        assert labels[window].size >= 0.7 * labels.size


def test_nothing_is_cut_where_no_mark_is_near_an_edge() -> None:
    labels = np.zeros((200, 300), np.uint8)
    assert cutting.through_a_mark(np.random.default_rng(0), labels, (CALIPER,)) is None
    labels[95:105, 145:155] = CALIPER
    assert cutting.through_a_mark(np.random.default_rng(0), labels, (CALIPER,)) is None
    assert cutting.through_a_mark(np.random.default_rng(0), labels, (TEXT,)) is None


@pytest.mark.parametrize("name", arrows.ARROWS)
def test_every_arrow_draws(name: str) -> None:
    board = canvas(120, 120)
    strokes, _ = arrows.shape(name, np.random.default_rng(0), 60, 60, 40, 30, 1.5)
    board.draw(strokes, (255, 255, 0), ARROW)
    assert (board.kind == ARROW).sum() > 20


def test_no_end_mark_turns_its_line_into_an_arrow() -> None:
    """An arrowhead is a mark whose arms run back along its line from a tip at the line's end."""
    for name in calipers.GLYPHS:
        for toward in (0.0, 180.0):  # whichever end of a level line
            strokes = calipers.glyph(name, 0, 0, 20, 1, toward)
            points = np.vstack([stroke.points for stroke in strokes])
            beside = points[np.abs(points[:, 1]) > 2, 0] * np.cos(np.radians(toward))
            assert not len(beside) or beside.min() < 2, name


@pytest.mark.parametrize("font", sorted(set(texts.FONTS)))
@pytest.mark.parametrize("size", [7, 12, 24])
def test_every_font_writes_letters_about_its_size(font: str, size: int) -> None:
    coverage = texts.letters("RT BREAST 10:00", font, size)
    assert coverage.max() > 150
    assert 0.4 * size <= coverage.shape[0] <= 2.4 * max(size, 11)
    assert coverage.shape[1] > 3 * coverage.shape[0]


@pytest.mark.parametrize(
    "table",
    [
        body_markers.FAMILIES,
        body_markers.PROBES,
        calipers.GLYPHS,
        calipers.LINES,
        texts.FONTS,
        arrows.ARROWS,
        color_boxes.SHAPES,
        color_boxes.LINES,
        MAPS,
        tuple(screens.PLANS),
    ],
)
def test_held_out_styles_are_never_trained_on(table: tuple[str, ...]) -> None:
    trained, held_out = set(split(table, held_out=False)), set(split(table, held_out=True))
    assert trained and held_out
    assert not trained & held_out
    assert trained | held_out == set(table)


def test_held_out_colours_are_far_from_those_of_training() -> None:
    rng = np.random.default_rng(0)
    trained = np.array(
        [draw(rng) for draw in (lambda rng: mark_colour(rng, held_out=False), any_colour) for _ in range(2000)]
    )
    for colour in HELD_OUT_COLOURS:
        assert np.abs(trained - colour).max(axis=1).min() > 20


def test_a_one_pixel_line_survives_reduction() -> None:
    for offset in np.linspace(0, 1, 11):
        board = canvas(100, 100)
        clean = board.image.copy()
        board.draw([Stroke(line(10, 50 + offset, 90, 50 + offset), 1.0)], (255, 255, 255), CALIPER)
        for scale in (0.6, 0.75, 1.0, 1.4):
            labels = Degradation(scale=scale).labels(board, clean)
            columns = (labels == CALIPER).any(axis=0)
            assert columns[round(15 * scale) : round(85 * scale)].all(), (offset, scale)


def test_the_mark_drawn_last_owns_the_pixel() -> None:
    board = canvas(50, 50)
    board.draw([Stroke(line(5, 25, 45, 25), 3.0)], (255, 0, 0), COLOR_BOX)
    board.draw([Stroke(line(25, 5, 25, 45), 3.0)], (255, 255, 255), CALIPER)
    assert board.kind[25, 25] == CALIPER
    assert board.kind[25, 10] == COLOR_BOX


def test_look_alikes_have_no_label() -> None:
    board = canvas(50, 50)
    board.draw([Stroke(line(5, 25, 45, 25), 3.0)], (255, 255, 255))
    assert board.image.max() == 255
    assert not board.kind.any()


def test_a_beam_lies_on_the_flow_and_is_no_mark() -> None:
    clean = canvas(200, 200)
    beam = Beam([Stroke(line(100, -5, 100, 205), 3.0)], (0, 255, 0), 1)
    clean.draw(beam.strokes, beam.colour, fineness=beam.fineness)
    on_it = (clean.image == beam.colour).all(axis=2)
    flowed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        screen = Layout([(0, 0, 200, 200)], [None], beams=[beam])
        marked = mark(clean.image, rng, screen, (COLOR_BOX,), held_out=False)
        labels = Degradation().labels(marked, clean.image)
        assert np.array_equal(marked.image[on_it], clean.image[on_it])
        assert not labels[on_it].any()
        flowed += bool((marked.kind[on_it] == COLOR_BOX).any())
    assert flowed > 10, "most boxes have something under the beam"


@pytest.mark.parametrize("seed", range(30))
def test_made_up_end_marks_are_none_of_those_kept_for_testing(seed: int) -> None:
    for strokes in (calipers.made_up(np.random.default_rng([seed, i])) for i in range(40)):
        arms = [s for s in strokes if len(s) == 2 and np.isclose(np.hypot(*s[0]), 0, atol=0.05)]
        rings = [s for s in strokes if len(s) > 3 and np.ptp(np.hypot(*s.T)) < 0.2]
        whole = len(arms) == 4 and any(np.hypot(*ring.T).mean() > 0.9 for ring in rings)
        assert not whole, "a cross in a ring is kept for testing"
        heads = [s for s in strokes if len(s) == 3]
        assert len(heads) != 2, "a line between two heads is an arrow"


def test_dashes_cover_their_share_of_the_line() -> None:
    pieces = dashed(line(0, 0, 100, 0), 4, 6)
    assert sum(float(np.hypot(*(piece[-1] - piece[0]))) for piece in pieces) == pytest.approx(40)


def test_dashes_take_turns() -> None:
    ends = [(float(piece[0, 0]), float(piece[-1, 0])) for piece in dashed(line(0, 0, 40, 0), 6, 4, 1, 4)]
    assert ends == [(0, 6), (10, 11), (15, 21), (25, 26), (30, 36)]


def test_made_up_dashes_are_never_near_those_kept_for_testing() -> None:
    rng = np.random.default_rng(0)
    patterns = [any_dashes(rng) for _ in range(3000)]
    assert {len(pattern) for pattern in patterns} == {2, 4, 6}
    for pattern in patterns:
        assert min(pattern) > 0
        for kept in HELD_OUT_DASHES:
            assert len(pattern) != len(kept) or np.abs(np.log(np.divide(pattern, kept))).max() >= 0.4


def test_the_dashes_kept_for_testing_are_those_of_the_held_out_lines() -> None:
    on, off = calipers.DASHES["dash-dot"]
    measured = {
        "calipers": calipers.DASHES | {"dash-dot": (on, off, calipers.DOT * on, off + (1 - calipers.DOT) * on)},
        "boxes": color_boxes.DASHES,
    }
    lines = {"calipers": calipers.LINES, "boxes": color_boxes.LINES}
    held_out = {measured[kind][name] for kind in lines for name in split(lines[kind], held_out=True)}
    assert held_out == set(HELD_OUT_DASHES)


def test_made_up_maps_brighten_with_speed() -> None:
    rng = np.random.default_rng(0)
    maps = [any_stops(rng) for _ in range(200)]
    assert len(set(maps)) == 200
    for stops in maps:
        levels = [max(stop) for stop in stops]
        assert levels == sorted(levels) or levels[:3] == sorted(levels[:3], reverse=True)
        assert levels[-1] > levels[3] and max(max(stop) for stop in stops) <= 255


def test_a_bar_shows_no_map_that_is_kept_for_testing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(furniture, "stops_of", lambda name: shown.append(name) or stops_of(name))
    for seed in range(60):
        board = canvas()
        furniture.colour_bar(board, np.random.default_rng(seed), layout(board), (40, 40, 300, 200), 1.0)
    assert set(shown) == set(split(MAPS, held_out=False))


def test_a_sector_box_lies_within_its_fan() -> None:
    fan = Fan(200, -50, 80, 350, 30)
    for seed in range(30):
        box = color_boxes.outline("sector", np.random.default_rng(seed), (0, 0, 400, 300), fan)
        radius = np.hypot(box[:, 0] - fan.x, box[:, 1] - fan.y)
        angle = np.degrees(np.arctan2(box[:, 0] - fan.x, box[:, 1] - fan.y))
        assert radius.min() >= fan.near - 1e-6 and radius.max() <= fan.reach + 1e-6
        assert np.abs(angle).max() <= fan.half + 1e-6


def test_a_screen_without_letters_is_what_remains_when_nothing_is_marked() -> None:
    rng = np.random.default_rng(3)
    clean, plan = screens.compose(np.full((300, 400, 3), 60, np.uint8), rng, True, False)
    board = Canvas(clean)
    for seed in range(12):
        screens.letter(board, np.random.default_rng(seed), plan, TEXT)
    assert plan.letters
    assert (board.kind == TEXT).any()
    assert np.array_equal(board.image[board.coverage == 0], clean[board.coverage == 0])
