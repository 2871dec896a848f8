"""An object storage on this machine: moto's server, which answers as S3 does."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

BUCKET = "galaxies"


class ObjectStorage:
    """A server with one bucket, gone with the block.

    Args:
        folder: where it writes its log, a line a request.
        host: the address to listen at.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.log = folder / "requests.log"
        self._host = host
        self._port = _free_port(host)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it, and nothing else."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://{self._host}:{self._port}",
        }

    def __enter__(self) -> "ObjectStorage":
        self._begin()
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _begin(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", self._host, "-p", str(self._port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection((self._host, self._port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < until, self.log.read_text()
                assert self._process.poll() is None, self.log.read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        """Let it answer nobody, and keep what it has."""
        self._process.send_signal(19)

    def go_on(self) -> None:
        """Let it answer again."""
        self._process.send_signal(18)


def _free_port(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        port: int = one.getsockname()[1]
        return port
