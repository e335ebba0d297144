"""docs/network.md says of the released weights what their card says."""

import tomllib
from pathlib import Path

from service.analyse.annotations import Kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "network.md").read_text()
METRICS = tomllib.loads((ROOT / "models" / "weights" / "sonomark" / "card.toml").read_text())["metrics"]
NAMES = {
    Kind.BODY_MARKER: "body marker",
    Kind.CALIPER: "caliper",
    Kind.COLOR_BOX: "colour box",
    Kind.TEXT: "text",
    Kind.ARROW: "arrow",
}


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table under a heading, by the first."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
    ]
    return {first: others for first, *others in cells[2:]}


def share(one: dict[str, float]) -> str:
    if not one["cases"]:
        return "no cases"
    return f"{one['value']:.3f} ({one['low']:.3f}–{one['high']:.3f}, n={one['cases']})"


def test_real_frames() -> None:
    table = rows("Real frames")
    for kind, name in NAMES.items():
        card = METRICS["real"][kind]
        auroc = f"{card['auroc']['value']:.3f}" if card["auroc"]["cases"] else "–"
        assert table[name][:3] == [auroc, share(card["sensitivity"]), share(card["specificity"])]


def test_unseen_styles() -> None:
    table = rows("Styles that were never drawn in training")
    for kind, name in NAMES.items():
        card = METRICS["unseen_styles"][kind]
        assert table[name] == [f"{card['Dice, 1 px']:.3f}", f"{card['AUROC']:.3f}"]


def test_clean_frames() -> None:
    clean = METRICS["clean"]
    marked = round(float(str(clean["with any false annotation"]).split()[0]) * clean["frames"])
    assert f"Of {clean['frames']} clean frames that no training saw, {marked} shows" in PAGE
    assert f"{100 * clean['share of pixels in the mask']:.4f} % of their pixels" in PAGE
