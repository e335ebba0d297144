"""What a receiver does not load."""

import subprocess
import sys

ASK = """
import sys
import service.receive.scp
assert "pydicom" in sys.modules and "requests" not in sys.modules
import requests
assert requests.get
"""


def test_a_receiver_loads_no_http_client_and_leaves_it_to_whoever_needs_one() -> None:
    subprocess.run([sys.executable, "-c", ASK], check=True, timeout=60)
