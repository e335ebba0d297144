"""What a receiver does not load."""

import subprocess
import sys

ASK = """
import sys
import service.receive.scp
assert "pydicom" in sys.modules
assert not {"requests", "service.compliance.rulebook", "service.db.worklist"} & sys.modules.keys()
import requests
assert requests.get
"""


def test_a_receiver_loads_no_http_client_nor_rules_nor_worklist_and_leaves_them_to_whoever_needs_one() -> None:
    subprocess.run([sys.executable, "-c", ASK], check=True, timeout=60)
