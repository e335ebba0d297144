"""How fast and how heavy the sonographer's pages are: `python -m bench.pages [--sign-in LINK]`.

Starts a house with the sample studies (or takes a running one and a one-time sign-in link) and prints for worklist and
study page: the bytes sent without frames, the layout shift and the time from the click to the first frame on the screen
(of five visits), and Lighthouse's scores on a desktop (of three runs), medians each; all of it takes less than four
minutes. Needs Chromium (``CHROME_PATH``) and npx, which fetches Lighthouse. A run of Lighthouse that fails is told with
its reason, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.ports import free_port

LIGHTHOUSE = ("npx", "--yes", "lighthouse@12.8.2")  # the last one for Node 20
CHROMIUM = os.environ.get("CHROME_PATH", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CATEGORIES = ("performance", "accessibility", "best-practices")
VISITS, RUNS = 5, 3
# A page with a live stream is never without a request under way, and Lighthouse would wait for that moment as long as
# it may. Everything else is there within the first second.
SETTLED_MS = 6_000
RUN_S = 90
LINK = re.compile(r"http://\S+/sign-in/once\?token=\S+")
# Seen by the page itself: what moved without being asked to, and when the first frame was drawn.
OBSERVE = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const each of list.getEntries()) if (!each.hadRecentInput) window.shift += each.value;
}).observe({type: "layout-shift", buffered: true});
document.addEventListener("load", event => {
  if (event.target.id === "first-frame") requestAnimationFrame(() => { window.firstFrame = performance.now(); });
}, true);
"""


@contextmanager
def house() -> Iterator[str]:
    """A house of its own with the sample studies; yields its one-time sign-in link."""
    with tempfile.TemporaryDirectory(prefix="sonomark-bench-") as folder:
        log = Path(folder) / "log"
        ports = {"SONOMARK_DICOM_PORT": str(free_port()), "SONOMARK_HTTP_PORT": str(free_port())}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "up", "--demo"],
                env={**os.environ, **ports, "SONOMARK_DATA_DIR": f"{folder}/data"},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 240
            while not (found := LINK.search(log.read_text(errors="replace"))):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the house did not come up:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


class LighthouseFailed(Exception):
    """A run without scores, and why."""


def lighthouse(address: str, cookie: str, out: Path) -> dict[str, Any]:
    """One run: its scores of 0 to 100, and the audits that cost something."""
    headers = out.with_suffix(".headers")
    headers.write_text(json.dumps({"Cookie": cookie}))
    command = [
        *LIGHTHOUSE, address, "--quiet", "--output=json", f"--output-path={out}", "--preset=desktop",
        f"--only-categories={','.join(CATEGORIES)}", f"--extra-headers={headers}",
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu", f"--max-wait-for-load={SETTLED_MS}",
    ]  # fmt: skip
    env = {**os.environ, "CHROME_PATH": CHROMIUM}
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=RUN_S)
    except FileNotFoundError as error:
        raise LighthouseFailed("npx is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LighthouseFailed(f"no answer within {RUN_S} s") from error
    if ended.returncode or not out.exists():
        raise LighthouseFailed(f"exit status {ended.returncode}: {ended.stderr.strip()[-600:]}")
    report = json.loads(out.read_text())
    if failure := report.get("runtimeError"):
        raise LighthouseFailed(f"{failure['code']}: {failure['message']}")
    scores = {name: round(100 * (report["categories"][name]["score"] or 0)) for name in CATEGORIES}
    wanting = [
        name
        for category in CATEGORIES
        for ref in report["categories"][category]["auditRefs"]
        if ref["weight"] and (score := report["audits"][name := ref["id"]]["score"]) is not None and score < 0.9
    ]
    return scores | {"wanting": wanting}


def weigh(page: Page, path: str) -> tuple[int, float, float | None]:
    """Bytes without frames, layout shift, and milliseconds to the first frame of one cold visit."""
    sent = 0
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    frames: set[str] = set()

    def remember(told: dict[str, Any]) -> None:
        if "/frames/" in told["response"]["url"]:
            frames.add(told["requestId"])

    def count(told: dict[str, Any]) -> None:
        nonlocal sent
        if told["requestId"] not in frames:
            sent += int(told["encodedDataLength"])

    network.on("Network.responseReceived", remember)
    network.on("Network.loadingFinished", count)
    page.goto(path, wait_until="load")
    page.wait_for_timeout(1200)
    shift, first = page.evaluate("[window.shift, window.firstFrame ?? null]")
    network.detach()
    return sent, float(shift), first


def measure(link: str) -> bool:
    """Print the table; whether every run came to its end."""
    failed = 0
    origin = link.split("/sign-in")[0]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context: BrowserContext = browser.new_context(base_url=origin, viewport={"width": 1280, "height": 720})
        context.add_init_script(OBSERVE)
        page = context.new_page()
        page.goto(link)
        page.click("button")
        page.wait_for_url("**/worklist**")
        study = page.get_attribute("#rows .patient a", "href") or ""
        cookie = "; ".join(f"{each.get('name')}={each.get('value')}" for each in context.cookies())
        print(
            f"{'page':10} {'kB without frames':>18} {'layout shift':>13} {'first frame ms':>15}"
            f"  Lighthouse (medians of {RUNS})",
            flush=True,
        )
        for name, path in (("worklist", "/worklist"), ("study", study)):
            visits = [weigh(page, path) for _ in range(VISITS)]
            runs = []
            for turn in range(RUNS):
                try:
                    runs.append(lighthouse(origin + path, cookie, Path(folder) / f"{name}{turn}.json"))
                except LighthouseFailed as reason:
                    failed += 1
                    print(f"{name}: run {turn + 1} of Lighthouse failed: {reason}", file=sys.stderr, flush=True)
            firsts = [first for _, _, first in visits if first is not None]
            medians = [f"{each} {statistics.median(run[each] for run in runs):.0f}" for each in CATEGORIES if runs]
            scores = ", ".join(medians) or "no run succeeded"
            print(
                f"{name:10} {statistics.median(sent for sent, _, _ in visits) / 1000:18.1f}"
                f" {max(shift for _, shift, _ in visits):13.4f}"
                f" {f'{statistics.median(firsts):.0f}' if firsts else '-':>15}  {scores}",
                flush=True,
            )
            wanting = sorted({audit for run in runs for audit in run["wanting"]})
            if wanting:
                print(f"{'':10} below 90: {', '.join(wanting)}")
        browser.close()
    return not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sign-in", help="one-time sign-in link of a running house with studies in it")
    given = parser.parse_args()
    if given.sign_in:
        sys.exit(not measure(given.sign_in))
    with house() as link:
        well = measure(link)
    sys.exit(not well)


if __name__ == "__main__":
    main()
