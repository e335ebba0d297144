"""Reviewers at work, as locust drives them; started by `bench.worklist`, which says where and as whom."""

import json
import os
import random

from locust import HttpUser, between, task

SESSIONS = json.loads(os.environ.get("BENCH_SESSIONS", "[]"))
_free = list(SESSIONS)


class Reviewer(HttpUser):
    """Looks at the worklist in its usual views, a few seconds apart, and opens a study now and then."""

    wait_time = between(1.0, 3.0)

    def on_start(self) -> None:
        self.client.cookies.set("sonomark_session", _free.pop())
        self.client.trust_env = False
        self.seen: list[str] = []

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

    @task(1)
    def a_study(self) -> None:
        if self.seen:
            self.client.get(f"/studies/{random.choice(self.seen)}?tab=flagged", name="study")

    def _list(self, query: str) -> None:
        answer = self.client.get(f"/worklist?{query}", name="worklist")
        self.seen = [part.split('"')[0].split("?")[0] for part in answer.text.split('href="/studies/')[1:]]
