# ruff: noqa: SIM905, RUF005, E501 - words in a row read better than a list of one a line
"""What is written on a screen: the sonographer's annotations, the scanner's parameters and banner; all made up."""

from __future__ import annotations

import numpy as np

from models.corruption.styles import pick

_SIDES = tuple("RT LT RIGHT LEFT R L Rt Lt Right Left DER IZQ RE LI DIR ESQ D G DX SIN".split())
_ORGANS = tuple(
    "BREAST Breast AXILLA THYROID LOBE KIDNEY LIVER MAMA TESTIS OVARY UTERUS CCA ICA CFV GB CBD SPLEEN AORTA IVC PANCREAS "
    "BLADDER NODE NECK SHOULDER HIP Nipple SCROTUM PROSTATE CERVIX FETUS HEAD FEMUR AC HC FL BPD GSV ACHILLES KNEE Brust "
    "Leber Niere SEIN FOIE REIN RIM TIROIDES AXILA PORTAL HEPATIC APPENDIX PAROTID isthmus placenta".split()
) + ("POP V", "MAMA ESQUERDA", "MAMA DIREITA", "LYMPH NODE", "Left lobe", "M. supraspinatus", "A. carotis")
_PLANES = tuple(
    "TRANS SAG LONG TRV RAD ANTIRAD ML AP SUP INF MID UPPER LOWER UOQ UIQ LOQ LIQ QSE QSI QIE QII Long Trans A/R AR CORONAL "
    "PRONE LLD PROX DIST quer längs".split()
)
_NOTES = tuple(
    "?CYST MASS PALP PRE POST VALSALVA COMPRESSION NORMAL LN CLIP NEEDLE SCAR DUCT NODULE STONE #1 #2 A B fibroid".split()
) + (
    "AREA OF CONCERN",
    "W/O COMP",
    "BX SITE",
    "LESION 1",
    "LESION 2",
    "PALPABLE AREA",
    "non compressible",
)
_NAMES = tuple("MA RO KI TEN SO LA BER NI DOR VA CHU PE LIN GAR TO MÜ SA HO".split())
_PRESETS = tuple("Abd OB Gyn Ren Breast Thyroid MSK Vasc Adult Echo Small Parts".split())


def annotation(rng: np.random.Generator) -> str:
    """What a sonographer types: "RT BREAST 10:00 3CMFN", "LT AXILLA", "RT6"."""
    side, organ, plane, note = (pick(rng, words) for words in (_SIDES, _ORGANS, _PLANES, _NOTES))
    clock, distance = int(rng.integers(1, 13)), int(rng.integers(1, 12))
    if rng.random() < 0.12:
        return side
    if rng.random() < 0.22:
        return pick(rng, (side, plane, f"{side} {clock}", f"{side}{clock}", f"{side} {plane}"))
    text = pick(
        rng,
        (
            f"{side} {organ}",
            f"{side} {organ} {plane}",
            f"{organ} {plane}",
            organ,
            plane,
            side,
            note,
            f"{side} {plane}",
            f"{side} {organ} {note}",
            f"{side} BREAST {clock}:00 {distance}CMFN",
            f"{side} {clock}:00 {distance} CM FN",
            f"{side} {clock}:{pick(rng, ('00', '30'))}",
            f"{side} {plane} {clock} O'CLOCK",
            f"{side}{clock}",
            f"{clock}H {distance}CM",
            f"{plane} {side} {organ} {clock}:00 N+{distance}",
            f"{clock}.00",
        ),
    )
    return text if rng.random() < 0.8 else (text.upper() if rng.random() < 0.6 else text.title())


# What a parameter column shows: {i} a small whole number, {t} a larger one, {d} one digit.
_PARAMETERS = tuple(
    "FR {t}|FR {t}Hz|D {i}.{d}|{i}.{d}cm|G {t}|Gn {t}|DR {t}|F {i}.{d}|FH{i}.{d}|AO {t}%|MI 0.{d}|MI 1.{d}|TIS 0.{d}|TIb 0.{d}|"
    "PRF {d}.{d}k|WF {t}|C {t}|Map A|Map C|Map F|P {d}|S {d}/{d}|CHI|Frq {i}.{d} MHz|2D|B|CF|{t}%|P Low|HGen|Res|Gen|THI|E{d}|"
    "Persist {d}|MB {d}|iClear {d}|[2D] G{t}/{t}dB|FA{d}|P{t}%|{d}-1{d} MHz|XV 2|{t} dB|Pwr {t}%|SRI II {d} / CRI {d}|C{d} / M{d}|"
    "{i}.{d} / {d}|Dyn R {t}|Thermal {d}.{d}|PRS {d}|PST {d}|{d}dB/{d}|2DG {t}|RES|PEN|CrossXBeam {d}".split("|")
)
_BANNERS = tuple(
    "{name}, {first}|{n}|{date}|{time}|{date} {time}|{date}  {time}|MI 1.{d}|MI 1.{d}  TIS 0.{d}|{name} HOSPITAL|{name} MED CTR|"
    "L{i}-{d}|C{d}-{d}/{preset}|ML6-15|{preset}|SmP/{preset}|FR {t}Hz|GA={i}w{d}d|ID: {n}|AP {t}%  MI 0.{d}|{name}^{first}|Z{d}|"
    "#{i}/{t}|{t} Y F|{t} Y M|Dr. {title}|TIs 0.{d}  MI 1.{d}|{preset} {i}.{d}cm / {d}.{d} / {t}Hz|DOB: {date}|ACC {n}".split(
        "|"
    )
)


def _numbers(rng: np.random.Generator, form: str) -> str:
    for hole, low, high in (("{d}", 0, 10), ("{i}", 2, 25), ("{t}", 10, 180), ("{n}", 10**5, 10**8)):
        while hole in form:
            form = form.replace(hole, str(rng.integers(low, high)), 1)
    return form


def parameter(rng: np.random.Generator) -> str:
    """One line of a scanner's parameter column."""
    return _numbers(rng, pick(rng, _PARAMETERS))


def banner(rng: np.random.Generator) -> str:
    """One field of a scanner's top banner; the names are random syllables."""
    year, month, day = int(rng.integers(2001, 2026)), int(rng.integers(1, 13)), int(rng.integers(10, 29))
    hour, minute, second = (int(v) for v in rng.integers((0, 0, 0), (24, 60, 60)))
    name = "".join(pick(rng, _NAMES) for _ in range(int(rng.integers(2, 4))))
    form = pick(rng, _BANNERS)
    dates = (
        f"{day}/{month:02}/{year}",
        f"{year}-{month:02}-{day}",
        f"{month:02}/{day}/{year % 100:02}",
        f"{day}.{month:02}.{year}",
    )
    times = (f"{hour:02}:{minute:02}:{second:02}", f"{hour % 12 + 1}:{minute:02}:{second:02} PM")
    form = (
        form.replace("{name}", name)
        .replace("{title}", name.title())
        .replace("{first}", pick(rng, _NAMES) + pick(rng, _NAMES))
    )
    form = (
        form.replace("{date}", pick(rng, dates))
        .replace("{time}", pick(rng, times))
        .replace("{preset}", pick(rng, _PRESETS))
    )
    return _numbers(rng, form)
