"""Three texts beside each other: nothing of any is lost, and clashes are told from changes."""

from hypothesis import given
from hypothesis import strategies as st

from service.review.differing import Line, _aligned, three_columns

texts = st.lists(st.sampled_from(["a", "b", "c", "d", ""]), max_size=12)


@given(base=texts, theirs=texts, mine=texts)
def test_every_column_read_down_is_its_text(base: list[str], theirs: list[str], mine: list[str]) -> None:
    lines = list(_aligned(base, theirs, mine))
    for name, text in (("base", base), ("theirs", theirs), ("mine", mine)):
        assert [getattr(line, name) for line in lines if getattr(line, name) is not None] == text


def test_a_clash_is_told_from_a_change() -> None:
    lines = [line for line in three_columns("a\nb\nc", "a\nB\nC", "a\nb2\nc") if line is not None]
    assert [line.clashes for line in lines] == [False, True, False]
    assert [line.is_changed for line in lines] == [False, True, True]


def test_unchanged_stretches_are_left_out() -> None:
    base = [str(number) for number in range(30)]
    mine = [*base[:15], "new", *base[15:]]
    shown = three_columns("\n".join(base), "\n".join(base), "\n".join(mine))
    assert Line(None, None, "new") in shown and None in shown and len(shown) == 6
    assert three_columns("a", "a", "a") == []
