"""Start MLflow's tracking server on this machine, and find addresses that have no server."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

DEADLINE = 120  # seconds; a server usually starts in ten


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def unused_address():
    """Return an address on which no server listens."""
    return f"http://127.0.0.1:{free_port()}"


class Server:
    """A tracking server that can be started and killed, with its artifacts in a folder."""

    def __init__(self, store, artifacts):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self.command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]

    @contextlib.contextmanager
    def running(self):
        """Start the server and wait until it answers; kill it at the end."""
        # It starts processes of its own, which are killed with it as one group.
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        settings |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(
            self.command,
            env=os.environ | settings,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_it_answers(f"{self.address}/health", process)
            yield
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def wait_until_it_answers(address, process):
    """Return when the address answers; fail if the process ends or at the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        assert process.poll() is None
        assert time.monotonic() < end
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
