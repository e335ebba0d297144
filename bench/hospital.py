"""A day of a hospital, from a seed, at N times its speed, on every service of docker-compose.yml.

    python -m bench.hospital --speed 20                                  the whole day, 72 minutes long
    python -m bench.hospital --speed 20 --share 0.2                      a fifth of its studies in a fifth of its time
    python -m bench.hospital --speed 5 --hours 0.5                       half an hour of the busiest, in six minutes
    python -m bench.hospital --speed 5 --hours 0.5 --from mean           half an hour of the average

Forty stations send two thousand studies of a hundred thousand images within ten hours, with a rush in the morning and
after noon and with whole studies pushed at once: 2.8 images/s on the average of the ten hours, 4.5 in the busiest.
A slice is played from the day's busiest hour, or from the one closest to the average. With ``--share`` the day is that
much shorter and has as many studies fewer: images a second, sizes of studies and bursts are those of the whole day; its
queue grows, and drains, in proportion. A day is carried at N times when all its verdicts are there within 24 hours / N.

Senders and services share this machine. Printed at the end: throughput, time from association to verdict, depth of the
queue and memory over time, what each service took of the processors, and whether anything acknowledged was lost or
doubled.
"""

import argparse
import copy
import heapq
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import psutil
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.presentation import build_context
from sqlalchemy import create_engine, text

from service.deliver.association import CallingEntity, associate
from service.demo import sample_files
from tests.acceptance.production import ROLES, Production

HOURS = range(8, 18)
# Studies begun in each hour, relative: the rush of the morning, the quiet of noon, the second rush.
RUSH = (6, 14, 16, 12, 6, 8, 14, 12, 8, 4)
SENDERS = 6
DAY_S = 24 * 3600.0


@dataclass(order=True, frozen=True)
class Push:
    """One association of a station: so many images of one study at once. ``at`` counts seconds from midnight."""

    at: float
    station: str
    study: str
    images: int


@dataclass
class Ledger:
    """What the senders saw, to be held against what the house says afterwards."""

    acknowledged: dict[str, float] = field(default_factory=dict)  # UID → when its association began
    refused: Counter[str] = field(default_factory=Counter)
    late_s: float = 0.0  # how far the senders fell behind the day
    lock: threading.Lock = field(default_factory=threading.Lock)


def plan(seed: int, stations: int, studies: int, images: int) -> list[Push]:
    """The day. Half of the stations push each image as it is taken, half the whole study at its end."""
    chance = random.Random(seed)
    sizes = [chance.lognormvariate(0, 0.6) for _ in range(studies)]
    scale = images / sum(sizes)
    day: list[Push] = []
    for number, size in enumerate(sizes):
        station = chance.randrange(stations)
        hour = chance.choices(HOURS, RUSH)[0]
        begin, count = (hour + chance.random()) * 3600, max(1, round(size * scale))
        study = f"2.25.{seed}{number:07d}"
        duration = chance.uniform(600, 1500)
        if station % 2:
            day += [Push(begin + duration * i / count, f"US{station:02d}", study, 1) for i in range(count)]
        else:
            day.append(Push(begin + duration, f"US{station:02d}", study, count))
    heapq.heapify(day)
    return [heapq.heappop(day) for _ in range(len(day))]


def begins(day: list[Push], hour: str) -> float:
    """When the ``busiest`` hour begins, the one closest to the ``mean``, or the ``day``; in seconds from midnight."""
    by_hour: Counter[int] = Counter()
    for push in day:
        by_hour[int(push.at // 3600)] += push.images
    if hour == "day":
        return day[0].at
    mean = sum(by_hour.values()) / len(HOURS)
    chosen = by_hour.most_common(1)[0][0] if hour == "busiest" else min(by_hour, key=lambda at: abs(by_hour[at] - mean))
    return chosen * 3600.0


def store(house: Production, push: Push, templates: Sequence[Dataset], ledger: Ledger, chance: random.Random) -> None:
    """One association, as a station makes it; images refused are counted, not hidden."""
    chosen = [chance.choice(templates) for _ in range(push.images)]
    contexts = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in chosen}
    ae = CallingEntity(push.station)
    begun = time.time()
    # With pynetdicom's own checkpoint a sender that is held up drops an answer now and then, and waits for it in vain.
    association = associate(
        ae, "127.0.0.1", house.ports["dicom"], contexts=[build_context(*pair) for pair in contexts], ae_title="SONOMARK"
    )
    if not association.is_established:
        with ledger.lock:
            ledger.refused["association"] += push.images
        return
    for image in chosen:
        uid = generate_uid()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
        image.StudyInstanceUID, image.SeriesInstanceUID = push.study, f"{push.study}.1"
        image.StationName = push.station
        status = getattr(association.send_c_store(image), "Status", None)
        with ledger.lock:
            if status == 0:
                ledger.acknowledged[uid] = begun
            else:
                ledger.refused[str(status)] += 1
    association.release()


def play(house: Production, day: list[Push], speed: float, seed: int, watch: "Watch") -> Ledger:
    """Send what is planned from its first push on, at ``speed``."""
    ledger, waiting = Ledger(), queue.Queue[tuple[float, Push] | None]()
    with tempfile.TemporaryDirectory() as folder:
        templates = [dcmread(path) for path in sample_files(Path(folder)) if path.name.startswith("sample-")]
    from_, began = day[0].at, time.monotonic()

    def sender(number: int) -> None:
        own, chance = copy.deepcopy(templates), random.Random(seed * 1000 + number)
        while (job := waiting.get()) is not None:
            due, push = job
            store(house, push, own, ledger, chance)
            with ledger.lock:
                ledger.late_s = max(ledger.late_s, time.monotonic() - due)

    threads = [threading.Thread(target=sender, args=(number,), daemon=True) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    for push in day:
        due = began + (push.at - from_) / speed
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
        waiting.put((due, push))
        watch.maybe()
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    return ledger


class Watch:
    """Depth and age of the queue, memory and processor time of every service, a few times a minute."""

    def __init__(self, house: Production, every_s: float = 5.0) -> None:
        self._house, self._every_s, self._next = house, every_s, 0.0
        self._began = time.monotonic()
        self.rows: list[tuple[float, float, float, float]] = []
        self.cpu_s: dict[str, float] = {}  # of each service, since the watch began
        self._before = self._spent_s()

    def _spent_s(self) -> dict[str, float]:
        services = {name: _cpu_s(one.pid) for name, one in self._house.processes.items()}
        return services | {"senders and this bench": sum(psutil.Process().cpu_times()[:2])}

    def maybe(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            flow = self._house.flow()
            memory = sum(_memory(self._house.processes[role].pid) for role in ROLES)
            at = time.monotonic() - self._began
            self.rows.append((at, flow.get("in_flight", -1), flow.get("oldest_in_flight_s", -1), memory / 2**20))
            self.cpu_s = {name: spent - self._before[name] for name, spent in self._spent_s().items()}

    def until_empty(self, within_s: float) -> float:
        """Watch until nothing is in flight; returns how long that took."""
        began = time.monotonic()
        while (flow := self._house.flow()).get("in_flight", 1) and time.monotonic() - began < within_s:
            self.maybe()
            time.sleep(0.5 if flow.get("in_flight", 1) < 100 else 3.0)  # counting a day's rows costs the house time
        self._next = 0
        self.maybe()
        return time.monotonic() - began if flow.get("in_flight") == 0 else float("inf")


def _cpu_s(pid: int) -> float:
    """Processor time of a process and its children, those that have ended included."""
    main = psutil.Process(pid)
    spent = 0.0
    for one in (main, *main.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended, and counts among those that have
            spent += sum(one.cpu_times()[:4])
    return spent


def _memory(pid: int) -> float:
    """Proportional set size of a process and its children: what is shared is counted once."""
    main = psutil.Process(pid)
    return float(sum(one.memory_full_info().pss for one in (main, *main.children(recursive=True))))


def report(house: Production, ledger: Ledger, watch: Watch, played_s: float, drained_s: float) -> None:
    """What the senders and the database say of the run. Raises SystemExit when anything was lost or doubled."""
    engine = create_engine(house.database_url())
    with engine.connect() as connection:
        ended = dict[str, float](
            connection.execute(
                text(
                    "SELECT i.sop_instance_uid, max(extract(epoch FROM a.finished_at))::float FROM instances i"
                    " JOIN analyses a ON a.instance_id = i.id WHERE a.state IN ('done', 'quarantined') GROUP BY 1"
                )
            ).all()
        )
        doubled = connection.scalar(
            text(
                "SELECT count(*) FROM (SELECT instance_id FROM verdicts WHERE superseded_at IS NULL AND instance_id"
                " IS NOT NULL GROUP BY 1 HAVING count(*) > 1 UNION ALL SELECT max(id) FROM instances"
                " GROUP BY sop_instance_uid HAVING count(*) > 1) AS twice"
            )
        )
    engine.dispose()
    waits = sorted(ended[uid] - begun for uid, begun in ledger.acknowledged.items() if uid in ended)
    stored = len(ledger.acknowledged)
    print(f"played              {played_s:.0f} s; drained after {drained_s:.1f} s more")
    print(f"senders             at most {ledger.late_s:.1f} s behind the day")
    print(f"acknowledged        {stored} images, {stored / played_s:.1f}/s; refused {dict(ledger.refused) or 0}")
    print(f"assessed            {len(waits) / (played_s + drained_s):.1f} images/s")
    if len(waits) > 20:
        p95 = quantiles(waits, n=20)[18]
        print(f"association→verdict p50 {median(waits):.2f} s, p95 {p95:.2f} s, most {waits[-1]:.2f} s")
    print("time s   in flight   oldest s   memory MB")
    for at, depth, oldest, memory in watch.rows[:: max(1, len(watch.rows) // 16)]:
        print(f"{at:6.0f} {depth:11.0f} {oldest:10.1f} {memory:11.0f}")
    if len(watch.rows) > 4:
        growth = watch.rows[-1][3] - watch.rows[len(watch.rows) // 4][3]
        print(f"memory growth       {growth:+.0f} MB since a quarter of the run")
    spent = sorted(watch.cpu_s.items(), key=lambda one: -one[1])
    print("processor ms/image  " + ", ".join(f"{name} {cpu_s / max(1, stored) * 1000:.1f}" for name, cpu_s in spent))
    lost = stored - len(waits)
    print(f"lost {lost}, duplicated {doubled}")
    if lost or doubled:
        sys.exit("an acknowledged image has no verdict, or two")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=5.0, help="times the hospital's own speed")
    parser.add_argument(
        "--hours", type=float, default=24.0, help="of the hospital's time; the queue is drained afterwards"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the day's studies, in the same share of its time")
    parser.add_argument("--from", dest="hour", choices=["busiest", "mean", "day"], help="day, unless --hours are given")
    parser.add_argument("--network", default="sonomark", help="name or folder of weights")
    parser.add_argument("--stations", type=int, default=40)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--images", type=int, default=100_000)
    chosen = parser.parse_args()
    day = plan(chosen.seed, chosen.stations, round(chosen.studies * chosen.share), round(chosen.images * chosen.share))
    faster = chosen.speed / chosen.share  # seconds of the plan to one of ours
    begin = begins(day, chosen.hour or ("day" if chosen.hours >= len(HOURS) else "busiest"))
    day_s = day[-1].at - day[0].at
    played = [push for push in day if begin <= push.at < begin + chosen.hours * 3600]
    images = sum(push.images for push in played)
    lasts_s = min(chosen.hours * 3600, day_s) / faster
    whole = sum(push.images for push in day)
    print(f"seed {chosen.seed}: {len({push.study for push in day})} studies, {whole} images", end=" ")
    print(f"in {chosen.share:g} of a day of {len(HOURS)} hours")
    print(f"from {begin / 3600:.0f}:00 on at {chosen.speed:g} times: {images} images in {lasts_s:.0f} s", end=", ")
    print(f"{images / lasts_s:.1f} a second", flush=True)
    network = chosen.network if chosen.network.isidentifier() else str(Path(chosen.network).resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # by way of `finally`, which ends the house
    house = Production(SONOMARK_NETWORK=network, SONOMARK_STUDY_SETTLE_S="30")
    try:
        house.start()
        watch, began = Watch(house), time.monotonic()
        ledger = play(house, played, faster, chosen.seed, watch)
        took_s = time.monotonic() - began
        has_s = DAY_S / faster  # what a day and its night have at this speed
        drained_s = watch.until_empty(max(600, has_s - took_s))
        if len(played) == len(day):
            print(f"the day             done after {took_s + drained_s:.0f} s of the {has_s:.0f} s it has", end=": ")
            print(f"{chosen.speed * has_s / (took_s + drained_s):.1f} times real time")
        report(house, ledger, watch, took_s, drained_s)
    finally:
        house.stop()


if __name__ == "__main__":
    main()
