"""MLflow's tracking server on this machine, for a test; and addresses where none is."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

DEADLINE = 120  # seconds, for what takes ten


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def nowhere():
    """Returns the address of a server that is not there."""
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
        """Starts it and waits for it; kills it at the end."""
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
    end = time.monotonic() + DEADLINE
    while True:
        assert process.poll() is None
        assert time.monotonic() < end
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
