"""Object stores on this machine, S3's and Google's, and a web server that can be slow, broken, or gone."""

import http.server
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pyarrow import fs

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}


@contextmanager
def object_store(bucket: str) -> Iterator[str]:
    """Yield the endpoint of moto's S3 server, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which would log every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = f"127.0.0.1:{port}"
        with patch.dict(os.environ, KEYS):
            fs.S3FileSystem(endpoint_override=endpoint, scheme="http", allow_bucket_creation=True).create_dir(bucket)
            yield endpoint
    finally:
        server.stop()


@contextmanager
def google_store(bucket: str) -> Iterator[str]:
    """Yield the endpoint of an emulator of Google's store, with an empty bucket.

    It is a process of its own, since pyarrow's client keeps the interpreter's lock while it waits.
    """
    (port,) = free_ports(1)
    options = [f"--port={port}", "--host=127.0.0.1", "--in-memory", f"--default-bucket={bucket}"]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            answers(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def free_ports(number: int) -> list[int]:
    """Return ports on which no process listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [bound.getsockname()[1] for bound in sockets]


def answers(port: int, host: str = "127.0.0.1") -> None:
    """Wait until a process listens on a port, 4 minutes at most."""
    deadline = time.monotonic() + 240
    while True:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Web:
    """The faults that a web server is to show, and the requests that it got."""

    def __init__(self) -> None:
        self.url = ""
        self.fail: list[int] = []  # statuses of the next answers
        self.ranges = True
        self.sleep = 0.0  # seconds before it answers
        self.asked: list[str] = []


@contextmanager
def web_server(folder: Path) -> Iterator[Web]:
    """Yield a server of a folder's files."""
    web = Web()
    handler = type("Handler", (_Handler,), {"web": web})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        self.web.asked.append(f"GET {self.path} {self.headers.get('Range', '')}".strip())
        time.sleep(self.web.sleep)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if self.web.fail:
            self.send_error(self.web.fail.pop(0))
        elif not wanted or not self.web.ranges:
            super().do_GET()
        else:
            data = Path(self.translate_path(self.path)).read_bytes()[int(wanted[1]) : int(wanted[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
