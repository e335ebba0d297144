"""Four senders that share no code with each other or with us: DCMTK, Orthanc, CTN and dcmjs-dimse."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.ports import free_port

Send = Callable[[Sequence[Path], int, Path], None]  # files, port, a folder to work in
LIMIT_S = 240


class Missing(Exception):
    """The sender is not installed here."""


def dcmtk(files: Sequence[Path], port: int, folder: Path) -> None:
    """`dcmsend` of Debian's dcmtk, file after file in as many associations as it likes."""
    _need("dcmsend", "apt-get install dcmtk")
    command = ["dcmsend", "-aec", "SONOMARK", "-nh", "-nuc", "-dn", "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, files)], check=False, capture_output=True, timeout=LIMIT_S)


def ctn(files: Sequence[Path], port: int, folder: Path) -> None:
    """`send_image` of Debian's ctn, the implementation of the 1990s, asked to propose the file's own syntax."""
    _need("send_image", "apt-get install ctn")
    for file in files:
        command = ["send_image", "-q", "-c", "SONOMARK", "-a", "CTN", "-X", _syntax(file), "127.0.0.1", str(port)]
        subprocess.run([*command, str(file)], check=False, capture_output=True, timeout=60, cwd=folder)


def orthanc(files: Sequence[Path], port: int, folder: Path) -> None:
    """Debian's orthanc: each file goes in by REST and out by C-STORE."""
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists():
        raise Missing("apt-get install orthanc")
    http = free_port()
    configuration = {
        "Name": "PEER",
        "StorageDirectory": str(folder / "orthanc"),
        "HttpPort": http,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "DicomModalities": {"sonomark": ["SONOMARK", "127.0.0.1", port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=-3)
    try:
        _until_it_answers(f"http://127.0.0.1:{http}/system")
        for file in files:
            stored = _post(f"http://127.0.0.1:{http}/instances", file.read_bytes())
            if stored:
                _post(f"http://127.0.0.1:{http}/modalities/sonomark/store", stored["ID"].encode())
    finally:
        process.terminate()
        process.wait(30)


DCMJS = """
const { Client, requests, Dataset, constants } = require('dcmjs-dimse');
const [port, ...files] = process.argv.slice(2);
(async () => {
  for (const file of files) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 10000);
      const done = () => { clearTimeout(timer); resolve(); };
      try {
        const client = new Client();
        client.addRequest(new requests.CStoreRequest(file));
        client.on('closed', done);
        client.on('networkError', done);
        client.send('127.0.0.1', Number(port), 'DCMJS', 'SONOMARK');
      } catch (error) { done(); }
    });
  }
  process.exit(0);
})();
"""


def dcmjs(files: Sequence[Path], port: int, folder: Path) -> None:
    """dcmjs-dimse of npm, installed into ``folder``."""
    install_dcmjs(folder)
    (folder / "send.js").write_text(DCMJS)
    command = ["node", "send.js", str(port), *map(str, files)]
    subprocess.run(command, cwd=folder, check=False, capture_output=True, timeout=LIMIT_S)


def install_dcmjs(folder: Path) -> None:
    """npm's dcmjs-dimse, for scripts in ``folder``."""
    _need("npm", "apt-get install npm")
    (folder / "package.json").write_text("{}")
    install = ["npm", "install", "--silent", "--ignore-scripts", "dcmjs-dimse@0.3.3"]
    if subprocess.run(install, cwd=folder, capture_output=True, timeout=LIMIT_S, check=False).returncode:
        raise Missing("npm install dcmjs-dimse")


SENDERS: dict[str, Send] = {
    "DCMTK 3.6.7": dcmtk,
    "Orthanc 1.10.1": orthanc,
    "CTN 3.2.0": ctn,
    "dcmjs-dimse 0.3.3": dcmjs,
}


def _need(program: str, cure: str) -> None:
    if shutil.which(program) is None:
        raise Missing(cure)


def _syntax(file: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def _post(url: str, body: bytes) -> dict[str, str] | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=30) as answer:
            found: dict[str, str] = json.load(answer)
            return found
    except OSError:
        return None


def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url} (environment {sorted(os.environ)[:3]})")
