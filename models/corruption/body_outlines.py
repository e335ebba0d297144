# ruff: noqa: E501 - control points read best in rows
"""Outlines of body parts as scanners draw them in a body marker, in a unit box (x right, y down, about ±0.5).

Each family is a list of paths: control points of a smooth curve, closed or open; straight where the name of the path says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.corruption.strokes import Points, arc, line, smooth


@dataclass(frozen=True)
class Path:
    """One pen path of a family; `fill` where a filled variant paints it."""

    points: Points
    closed: bool = False
    fill: bool = False


Table = list[tuple[float, float]]


def _curve(table: Table, closed: bool = False, fill: bool = False) -> Path:
    return Path(smooth(table, closed=closed), closed, fill)


def _straight(table: Table, closed: bool = False, fill: bool = False) -> Path:
    return Path(np.array(table, np.float64), closed, fill)


def _ring(x: float, y: float, rx: float, ry: float | None = None, fill: bool = False) -> Path:
    return Path(arc(x, y, rx, rx if ry is None else ry, 0, 348.75, 32), True, fill)


def _flipped(paths: list[Path]) -> list[Path]:
    return [Path(p.points * (-1, 1), p.closed, p.fill) for p in paths]


def _both(table: Table) -> list[Path]:
    one = _curve(table)
    return [one, *_flipped([one])]


def _symmetric(table: Table, fill: bool = True) -> Path:
    """A closed outline from its right half, listed top to bottom."""
    return _curve(table + [(-x, y) for x, y in reversed(table) if abs(x) > 1e-9], closed=True, fill=fill)


def _breast(
    x: float = 0.0, r: float = 0.36, *, side: int = 1, axilla: bool = True, cross: bool = True, rings: int = 1
) -> list[Path]:
    paths = [_ring(x, 0.08, r, fill=True)]
    paths += [_ring(x, 0.08, r * f) for f in ((0.16,), (0.16, 0.55), (0.33, 0.66, 0.1))[rings - 1]]
    if cross:
        paths += [Path(line(x - r, 0.08, x + r, 0.08)), Path(line(x, 0.08 - r, x, 0.08 + r))]
    if axilla:
        paths.append(
            _straight(
                [
                    (x + side * r * 0.35, 0.08 - r * 0.93),
                    (x + side * r * 1.45, -r * 1.2),
                    (x + side * r * 0.93, 0.08 - r * 0.3),
                ]
            )
        )
    return paths


def _hatched(x: float) -> list[Path]:
    return [
        _ring(x, 0, 0.4, fill=True),
        _ring(x, 0, 0.07),
        Path(line(x - 0.28, -0.28, x + 0.28, 0.28)),
        Path(line(x - 0.28, 0.28, x + 0.28, -0.28)),
    ]


def _spokes() -> list[Path]:
    angle = np.radians(np.arange(0, 360, 30))
    return [
        _ring(0, 0, 0.42, fill=True),
        _ring(0, 0, 0.1),
        *(Path(line(0.1 * np.cos(a), 0.1 * np.sin(a), 0.42 * np.cos(a), 0.42 * np.sin(a))) for a in angle),
    ]


# Control points read best in rows.
# fmt: off
_NECK: Table = [(-0.2, -0.5), (-0.17, -0.2), (-0.22, 0.1), (-0.5, 0.3)]
_TORSO: Table = [(0.1, -0.5), (0.12, -0.4), (0.34, -0.36), (0.4, -0.24), (0.33, 0.0), (0.3, 0.2), (0.36, 0.5)]
_WAIST: Table = [(0.34, -0.5), (0.3, -0.2), (0.29, 0.05), (0.38, 0.35), (0.4, 0.5)]
_LEG: Table = [(0.04, -0.5), (0.05, -0.25), (0.08, 0.0), (0.07, 0.25), (0.1, 0.45), (0.06, 0.5)]
_LEG_OUT: Table = [(0.3, -0.5), (0.29, -0.25), (0.22, 0.0), (0.23, 0.15), (0.17, 0.4), (0.22, 0.5)]
_HEAD: Table = [(0.0, -0.48), (0.26, -0.38), (0.34, -0.1), (0.28, 0.25), (0.12, 0.47), (0.0, 0.49)]
_KIDNEY: Table = [(0.05, -0.48), (0.26, -0.3), (0.3, 0.02), (0.22, 0.34), (0.0, 0.48), (-0.14, 0.34), (-0.02, 0.08), (-0.04, -0.1), (-0.16, -0.32), (-0.08, -0.46)]
_LIVER: Table = [(-0.5, 0.05), (-0.42, -0.25), (-0.1, -0.34), (0.25, -0.28), (0.5, -0.18), (0.3, 0.02), (0.05, 0.1), (-0.12, 0.3), (-0.36, 0.36)]
_UTERUS: Table = [(0.0, -0.42), (0.22, -0.36), (0.24, -0.15), (0.12, 0.1), (0.1, 0.42)]
_HEART: Table = [(0.02, -0.28), (0.2, -0.4), (0.38, -0.22), (0.3, 0.12), (0.08, 0.46), (-0.2, 0.25), (-0.36, -0.08), (-0.28, -0.36), (-0.08, -0.38)]
_PROSTATE: Table = [(0.0, -0.28), (0.24, -0.34), (0.42, -0.1), (0.34, 0.2), (0.1, 0.32), (0.0, 0.27)]
_FETUS: Table = [(0.02, -0.34), (0.2, -0.2), (0.34, 0.1), (0.22, 0.4), (-0.08, 0.46), (-0.28, 0.3), (-0.16, 0.12), (-0.2, -0.05)]
_HAND: Table = [(-0.2, 0.5), (-0.22, 0.15), (-0.4, -0.08), (-0.34, -0.16), (-0.18, 0.0), (-0.18, -0.42), (-0.1, -0.44), (-0.07, -0.1), (-0.03, -0.5),
                (0.05, -0.5), (0.06, -0.1), (0.12, -0.44), (0.19, -0.42), (0.17, -0.06), (0.25, -0.3), (0.31, -0.27), (0.24, 0.1), (0.18, 0.5)]
_FOOT: Table = [(-0.06, -0.5), (-0.08, -0.1), (-0.2, 0.2), (-0.12, 0.34), (0.2, 0.34), (0.46, 0.32), (0.46, 0.22), (0.2, 0.08), (0.1, -0.12), (0.1, -0.5)]
_ARM: Table = [(-0.5, -0.14), (-0.2, -0.16), (0.05, -0.1), (0.3, -0.08), (0.5, -0.1)]
_LUNG: Table = [(-0.1, -0.46), (-0.06, -0.2), (-0.08, 0.2), (-0.12, 0.44), (-0.34, 0.46), (-0.42, 0.2), (-0.38, -0.15), (-0.22, -0.44)]
_THYROID: Table = [(0.05, 0.05), (0.14, -0.3), (0.24, -0.34), (0.28, -0.05), (0.2, 0.28), (0.08, 0.2)]

OUTLINES: dict[str, list[Path]] = {
    "breast right": _breast(side=-1),
    "breast left": _breast(side=1),
    "breasts": _breast(-0.26, 0.22, side=-1, rings=1) + _breast(0.26, 0.22, side=1, rings=1),
    "breast rings": _breast(side=1, axilla=False, rings=2),
    "breast spokes": _spokes(),
    "breast plain": _breast(side=-1, axilla=True, cross=False),
    "breast target": _breast(side=-1, axilla=True, cross=False, rings=3),
    "breast drop": [_curve([(-0.1, -0.3), (0.2, -0.36), (0.48, -0.46), (0.4, -0.1), (0.34, 0.2), (0.05, 0.4), (-0.28, 0.3), (-0.38, 0.0)], True, True), _ring(0, 0.05, 0.06)],
    "breasts bare": [_ring(-0.25, 0, 0.23, fill=True), _ring(0.25, 0, 0.23, fill=True), _ring(-0.25, 0, 0.04), _ring(0.25, 0, 0.04)],
    "breast hatched": _hatched(0.0),
    "chest": [*_both([(0.1, -0.5), (0.12, -0.4), (0.42, -0.34), (0.46, -0.05)]), *_both([(0.32, -0.15), (0.36, 0.15), (0.2, 0.32), (0.04, 0.18)]), _ring(-0.22, 0.1, 0.03), _ring(0.22, 0.1, 0.03)],
    "thyroid": [_symmetric([(0.0, 0.1), *_THYROID[1:5], (0.06, 0.22), (0.0, 0.2)]), *_both(_NECK)],
    "thyroid gland": [_symmetric([(0.0, 0.05), (0.1, -0.4), (0.3, -0.4), (0.36, 0.0), (0.24, 0.38), (0.0, 0.25)])],
    "thyroid lobes": [_curve(_THYROID, True, True), *_flipped([_curve(_THYROID, True, True)]), Path(line(-0.06, 0.1, 0.06, 0.1)), *_both(_NECK)],
    "neck": [*_both(_NECK), _curve([(-0.2, -0.5), (0.0, -0.4), (0.2, -0.5)]), *_both([(-0.04, 0.4), (-0.1, 0.1), (-0.16, -0.2)])],
    "neck side": [_curve([(-0.1, -0.5), (-0.36, -0.36), (-0.42, -0.2), (-0.32, -0.06), (-0.16, 0.0), (-0.14, 0.25), (-0.4, 0.5)]), _curve([(0.26, -0.5), (0.22, -0.1), (0.26, 0.2), (0.5, 0.4)])],
    "carotid": [_curve([(-0.08, 0.5), (-0.09, 0.05), (-0.28, -0.45)]), _curve([(0.08, 0.5), (0.1, 0.05), (0.3, -0.45)]), _curve([(-0.12, -0.45), (0.0, -0.05), (0.13, -0.45)])],
    "abdomen": [*_both(_WAIST), _curve([(-0.3, -0.3), (0.0, -0.48), (0.3, -0.3)]), _ring(0, 0.08, 0.02)],
    "abdomen ribs": [*_both(_WAIST), *_both([(0.03, -0.4), (0.1, -0.2), (0.27, 0.0)]), _ring(0, 0.16, 0.02)],
    "abdomen oval": [_ring(0, 0, 0.46, 0.32, fill=True), _ring(0, 0.2, 0.07), _ring(-0.12, 0.1, 0.04)],
    "abdomen pregnant": [_curve([(-0.2, -0.5), (-0.22, -0.1), (-0.2, 0.2), (-0.28, 0.5)]), _curve([(0.14, -0.5), (0.18, -0.3), (0.42, 0.0), (0.34, 0.3), (0.16, 0.4), (0.2, 0.5)])],
    "torso": [*_both(_TORSO)],
    "torso back": [*_both(_TORSO), Path(line(0, -0.4, 0, 0.45)), *_both([(0.1, -0.2), (0.22, -0.12), (0.12, 0.02)])],
    "torso arms": [*_both([(0.08, -0.5), (0.1, -0.4), (0.36, -0.34), (0.48, 0.1)]), *_both([(0.38, 0.1), (0.3, -0.15), (0.27, 0.1), (0.33, 0.5)])],
    "torso side": [_curve([(-0.12, -0.5), (-0.22, -0.2), (-0.12, 0.1), (-0.24, 0.5)]), _curve([(0.14, -0.5), (0.2, -0.2), (0.14, 0.15), (0.2, 0.5)])],
    "whole body": [_ring(0, -0.42, 0.07), _symmetric([(0.04, -0.34), (0.16, -0.3), (0.24, 0.02), (0.18, 0.03), (0.12, -0.18), (0.1, 0.0), (0.13, 0.48), (0.04, 0.48), (0.0, 0.08)])],
    "legs": [*_both(_LEG), *_both(_LEG_OUT)],
    "legs back": [*_both(_LEG), *_both(_LEG_OUT), *_both([(0.1, -0.02), (0.15, 0.02), (0.2, -0.02)])],
    "leg right": [_curve([(x - 0.18, y) for x, y in _LEG]), _curve([(x - 0.18, y) for x, y in _LEG_OUT])],
    "leg bent": [_curve([(-0.5, -0.3), (-0.1, -0.42), (0.16, -0.3), (0.12, 0.1), (0.1, 0.5)]), _curve([(-0.5, -0.02), (-0.14, -0.12), (-0.08, 0.1), (-0.05, 0.5)])],
    "knee": [_curve([(-0.2, -0.5), (-0.24, -0.12), (-0.28, 0.05), (-0.2, 0.5)]), _curve([(0.2, -0.5), (0.22, -0.12), (0.24, 0.05), (0.16, 0.5)]), _ring(0, -0.02, 0.11, 0.13)],
    "foot": [_curve(_FOOT)],
    "feet": [_curve([(x * 0.5 + 0.25, y) for x, y in _FOOT]), *_flipped([_curve([(x * 0.5 + 0.25, y) for x, y in _FOOT])])],
    "hand": [_curve(_HAND, True, True)],
    "wrist": [_curve([(-0.16, -0.5), (-0.2, -0.1), (-0.14, 0.1), (-0.16, 0.5)]), _curve([(0.2, -0.5), (0.24, -0.2), (0.14, 0.1), (0.15, 0.5)]), Path(line(-0.14, 0.1, 0.14, 0.1))],
    "arm": [_curve(_ARM), _curve([(x, -y * 0.8) for x, y in _ARM])],
    "elbow": [_curve([(-0.45, -0.5), (-0.3, 0.1), (0.05, 0.34), (0.5, 0.3)]), _curve([(-0.2, -0.5), (-0.1, -0.05), (0.12, 0.1), (0.5, 0.1)])],
    "shoulder": [_curve([(-0.3, -0.5), (-0.22, -0.36), (0.1, -0.3), (0.34, -0.12), (0.4, 0.15), (0.38, 0.5)]), _curve([(0.12, 0.5), (0.14, 0.2), (0.08, 0.1), (0.04, 0.5)])],
    "hip": [_curve([(-0.2, -0.5), (-0.3, -0.15), (-0.42, 0.1), (-0.34, 0.5)]), _curve([(0.3, -0.5), (0.26, -0.1), (0.05, 0.12), (0.04, 0.5)]), _ring(-0.2, 0.05, 0.08)],
    "head": [_symmetric(_HEAD), _curve([(-0.34, -0.1), (-0.4, 0.0), (-0.32, 0.12)]), _curve([(0.34, -0.1), (0.4, 0.0), (0.32, 0.12)])],
    "head side": [_curve([(-0.1, 0.5), (-0.14, 0.3), (-0.34, 0.28), (-0.34, 0.14), (-0.44, 0.08), (-0.36, -0.1), (-0.3, -0.34), (0.0, -0.49), (0.32, -0.36), (0.38, -0.05), (0.24, 0.2), (0.24, 0.5)])],
    "head axial": [_ring(0, 0, 0.36, 0.46, fill=True), Path(line(0, -0.46, 0, -0.12)), Path(line(0, 0.12, 0, 0.46)), _ring(0, 0, 0.07, 0.1)],
    "neonate head": [_symmetric([(0.0, -0.44), (0.3, -0.34), (0.38, 0.0), (0.24, 0.36), (0.0, 0.44)]), _straight([(0, -0.3), (0.08, -0.2), (0, -0.1), (-0.08, -0.2)], True)],
    "kidney": [_curve(_KIDNEY, True, True)],
    "kidneys": [_curve([(x * 0.6 + 0.26, y * 0.8) for x, y in _KIDNEY], True, True), *_flipped([_curve([(x * 0.6 + 0.26, y * 0.8) for x, y in _KIDNEY], True, True)])],
    "kidney pelvis": [_curve(_KIDNEY, True, True), _curve([(x * 0.45 + 0.02, y * 0.5) for x, y in _KIDNEY], True)],
    "transplant": [*_both(_WAIST), _curve([(x * 0.3 - 0.16, y * 0.32 + 0.24) for x, y in _KIDNEY], True, True)],
    "liver": [_curve(_LIVER, True, True)],
    "liver in body": [*_both(_WAIST), _curve([(x * 0.55 - 0.04, y * 0.5 - 0.1) for x, y in _LIVER], True, True)],
    "gallbladder": [_curve([(-0.06, -0.45), (0.06, -0.2), (0.24, 0.2), (0.1, 0.46), (-0.16, 0.4), (-0.18, 0.05)], True, True), _curve([(-0.06, -0.45), (0.1, -0.5), (0.2, -0.42)])],
    "pancreas": [_curve([(-0.48, 0.16), (-0.3, 0.0), (0.0, -0.05), (0.3, -0.22), (0.48, -0.2), (0.4, -0.02), (0.05, 0.12), (-0.2, 0.3), (-0.4, 0.32)], True, True)],
    "spleen": [_curve([(-0.2, -0.46), (0.16, -0.34), (0.3, 0.05), (0.12, 0.44), (-0.04, 0.2), (-0.06, -0.1)], True, True)],
    "bladder": [_symmetric([(0.0, -0.3), (0.34, -0.22), (0.38, 0.05), (0.12, 0.32), (0.0, 0.36)]), Path(line(-0.03, 0.36, -0.03, 0.5)), Path(line(0.03, 0.36, 0.03, 0.5))],
    "uterus": [_curve(_UTERUS + [(-x, y) for x, y in reversed(_UTERUS) if x]), *_both([(0.22, -0.34), (0.42, -0.4), (0.46, -0.2)]), _ring(0.4, -0.12, 0.08, 0.06), _ring(-0.4, -0.12, 0.08, 0.06)],
    "uterus side": [_curve([(-0.4, -0.2), (-0.2, -0.4), (0.1, -0.3), (0.2, 0.0), (0.4, 0.4), (0.26, 0.46), (0.02, 0.12), (-0.26, 0.06)], True, True)],
    "uterus lines": [*_both(_UTERUS), Path(line(0, -0.3, 0, 0.42))],
    "ovaries": [_ring(-0.28, 0, 0.18, 0.12, fill=True), _ring(0.28, 0, 0.18, 0.12, fill=True), _curve([(-0.12, -0.3), (0.0, -0.4), (0.12, -0.3), (0.06, 0.3), (-0.06, 0.3)], True)],
    "pelvis": [*_both([(0.04, 0.2), (0.2, 0.1), (0.26, -0.1), (0.46, -0.4)]), *_both([(0.46, -0.4), (0.4, 0.1), (0.2, 0.4), (0.0, 0.42)])],
    "fetus": [_ring(-0.16, -0.28, 0.18, 0.16, fill=True), _curve(_FETUS), _curve([(0.0, 0.2), (-0.2, 0.14), (-0.34, -0.02)])],
    "fetus in uterus": [_ring(0, 0, 0.36, 0.47), _ring(-0.06, 0.24, 0.13, 0.12), _curve([(x * 0.6, 0.05 - y * 0.6) for x, y in _FETUS])],
    "fetus breech": [_ring(0, 0, 0.34, 0.46), _ring(0.04, -0.22, 0.12, 0.12), _curve([(-x * 0.55, y * 0.6 + 0.06) for x, y in _FETUS])],
    "twins": [_ring(0, 0, 0.44, 0.42), Path(line(0, -0.42, 0, 0.42)), _ring(-0.2, 0.15, 0.1), _ring(0.2, -0.15, 0.1)],
    "heart": [_curve(_HEART, True, True)],
    "heart chambers": [_curve(_HEART, True, True), _curve([(0.0, -0.3), (0.03, 0.0), (0.08, 0.4)]), _curve([(-0.33, -0.05), (0.0, -0.04), (0.34, -0.1)])],
    "heart vessels": [_curve(_HEART, True, True), _curve([(-0.12, -0.38), (-0.1, -0.5), (0.1, -0.5), (0.14, -0.36)])],
    "aorta": [Path(line(-0.06, -0.5, -0.06, 0.15)), Path(line(0.06, -0.5, 0.06, 0.15)), *_both([(0.06, 0.15), (0.14, 0.3), (0.24, 0.5)]), _curve([(-0.12, 0.5), (0.0, 0.28), (0.12, 0.5)])],
    "prostate": [_symmetric(_PROSTATE)],
    "prostate zones": [_symmetric(_PROSTATE), _curve([(-0.36, 0.08), (-0.16, 0.02), (0.0, 0.12), (0.16, 0.02), (0.36, 0.08)]), _ring(0, -0.14, 0.05)],
    "scrotum": [_symmetric([(0.0, -0.4), (0.1, -0.3), (0.36, 0.0), (0.34, 0.36), (0.1, 0.42), (0.0, 0.3)]), _ring(-0.18, 0.12, 0.12, 0.17, fill=True), _ring(0.18, 0.12, 0.12, 0.17, fill=True)],
    "testis": [_ring(0, 0.05, 0.24, 0.36, fill=True), _curve([(0.1, -0.32), (0.28, -0.4), (0.34, -0.1), (0.26, 0.2)])],
    "penis": [_curve([(-0.3, -0.4), (-0.14, -0.1), (-0.12, 0.34), (0.0, 0.46), (0.12, 0.34), (0.14, -0.1), (0.3, -0.4)])],
    "lungs": [_curve(_LUNG, True, True), *_flipped([_curve(_LUNG, True, True)]), Path(line(0, -0.5, 0, -0.15))],
    "spine": [_straight([(-0.08, y0 * 0.01), (0.08, y0 * 0.01), (0.08, y0 * 0.01 + 0.11), (-0.08, y0 * 0.01 + 0.11)], True, True) for y0 in range(-46, 40, 15)],
    "eye": [_ring(0, 0, 0.34, fill=True), _curve([(-0.2, -0.27), (0.0, -0.4), (0.2, -0.27)]), Path(line(-0.06, 0.34, -0.1, 0.5)), Path(line(0.06, 0.34, 0.1, 0.5))],
    "orbits": [_ring(-0.26, 0, 0.2, 0.12), _ring(0.26, 0, 0.2, 0.12), _ring(-0.26, 0, 0.06, fill=True), _ring(0.26, 0, 0.06, fill=True)],
    "bowel": [_curve([(-0.34, 0.4), (-0.38, -0.3), (-0.2, -0.38), (0.2, -0.38), (0.38, -0.3), (0.34, 0.2), (0.1, 0.42)]), _curve([(-0.22, 0.4), (-0.25, -0.2), (0.0, -0.24), (0.25, -0.2), (0.22, 0.12), (0.0, 0.34)])],
    "muscle": [_curve([(-0.5, 0.0), (-0.2, -0.16), (0.2, -0.14), (0.5, 0.0), (0.2, 0.14), (-0.2, 0.16)], True, True)],
    "axilla": [_curve([(-0.5, -0.3), (-0.1, -0.28), (0.1, 0.0), (0.12, 0.5)]), _curve([(0.5, -0.34), (0.3, -0.3), (0.2, -0.05), (0.24, 0.1)])],
    "groin": [*_both([(0.02, 0.2), (0.16, 0.02), (0.42, -0.22)]), *_both([(0.46, -0.5), (0.44, 0.0), (0.4, 0.5)]), Path(line(0.0, 0.2, 0.0, 0.5))],
}
# fmt: on


def unnamed(rng: np.random.Generator) -> list[Path]:
    """An outline of no organ in particular: a smooth closed shape, or the two sides of a limb, with a detail or two."""
    paths = []
    mirrored = rng.random() < 0.6
    if rng.random() < 0.65:
        count = int(rng.integers(5, 10))
        angle = np.sort(rng.uniform(-np.pi / 2, np.pi / 2, count))
        reach = rng.uniform(0.22, 0.5, count)
        right = [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(reach, angle, strict=True)]
        if mirrored:
            paths.append(_symmetric([(0.0, -0.4), *right, (0.0, 0.4)]))
        else:
            around = np.linspace(0, 2 * np.pi, count, endpoint=False)
            table = [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(reach, around, strict=True)]
            paths.append(_curve(table, True, True))
    else:
        rows = np.linspace(-0.5, 0.5, int(rng.integers(4, 8)))
        side = [(float(x), float(y)) for x, y in zip(rng.uniform(0.08, 0.45, len(rows)), rows, strict=True)]
        paths += _both(side) if mirrored else [_curve(side), _curve([(x - 0.4, y) for x, y in side[::-1]])]
    for _ in range(int(rng.integers(0, 4))):
        x, y = (float(v) for v in rng.uniform(-0.25, 0.25, 2))
        size = float(rng.uniform(0.03, 0.16))
        detail = int(rng.integers(3))
        if detail == 0:
            paths.append(_ring(x, y, size, size * float(rng.uniform(0.6, 1.0))))
        elif detail == 1:
            paths.append(Path(line(x - size, y, x + size, y + float(rng.normal(0, 0.05)))))
        else:
            knots = rng.uniform(-0.3, 0.3, (int(rng.integers(3, 6)), 2))
            paths.append(_curve([(float(a), float(b)) for a, b in knots]))
    return paths
