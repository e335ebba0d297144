"""Reviewers at work, as locust drives them; started by `bench.worklist`, which says where, as whom and at what pace."""

import json
import os
import random
import re

from locust import FastHttpUser, between, task

_free = json.loads(os.environ.get("BENCH_SESSIONS", "[]"))
PACE = json.loads(os.environ.get("BENCH_PACE", "[1, 1]"))  # least and most seconds between two pages
STUDY = re.compile(rb'href="(/studies/[0-9.]+)')


class Reviewer(FastHttpUser):
    """Looks at the worklist in its usual views, opens a study of it every fourth time, and reads before going on."""

    wait_time = between(*PACE)
    network_timeout = connection_timeout = 30

    def on_start(self) -> None:
        self.headers = {"Cookie": f"sonomark_session={_free.pop()}"}
        self.seen: list[bytes] = []
        self.wait()  # type: ignore[no-untyped-call]  # nobody's first look comes at the same moment as everybody else's

    @task(6)
    def flagged(self) -> None:
        self._list("tab=flagged")

    @task(2)
    def everything(self) -> None:
        self._list("tab=all")

    @task(2)
    def of_a_station(self) -> None:
        self._list(f"tab=flagged&station=US{random.randrange(40)}")

    @task(1)
    def of_a_patient(self) -> None:
        self._list(f"tab=all&q=ID{random.randrange(100, 100_000)}")

    @task(1)
    def mine(self) -> None:
        self._list("tab=mine")

    @task(4)
    def a_study(self) -> None:
        if self.seen:
            path = random.choice(self.seen).decode()
            self.client.get(f"{path}?tab=flagged", name="study", headers=self.headers)

    def _list(self, query: str) -> None:
        with self.client.get(f"/worklist?{query}", name="worklist", headers=self.headers, catch_response=True) as got:
            if b"<h1>Worklist</h1>" in (got.content or b""):
                self.seen = STUDY.findall(got.content)
            else:
                got.failure(f"no worklist, but {got.status_code}")
