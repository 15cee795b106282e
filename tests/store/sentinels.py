"""A real Sentinel beside the test servers, and certificates for servers that speak TLS."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import Kind, Server, binary_of, free_port, short_folder
from tests.waiting import wait_until

MASTER = "main"
TRIES = 20


class Sentinel:
    """One Sentinel process that watches `primary` under the name `main` and fails over alone, within a second or two.

    `lines` are further lines of its configuration; with `tls` it is asked over TLS (`tls_port`), and asks so.
    """

    def __init__(self, kind: Kind, primary: Server, *lines: str, primary_port: int | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pillion-sentinel-", dir=short_folder()))
        self.port = 0
        self._kind = kind
        self._lines = [
            f"sentinel monitor {MASTER} 127.0.0.1 {primary_port or primary.port} 1",
            f"sentinel down-after-milliseconds {MASTER} 300",
            f"sentinel failover-timeout {MASTER} 2000",
            *lines,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Sentinel:
        for _ in range(TRIES):
            self.port = free_port()
            self._launch()
            if (
                wait_until(lambda: self._ended() or self._answers(), what="the sentinel to answer")
                and not self._ended()
            ):
                return self
        raise AssertionError(f"no sentinel would start\n{(self.folder / 'log').read_text()[-2000:]}")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5.0, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def wait_for_replica(self) -> None:
        """Until it knows a replica that it could promote."""
        with self.client() as client:
            wait_until(lambda: any(usable(each) for each in client.sentinel_slaves(MASTER)), what="a known replica")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self) -> None:
        config = self.folder / "sentinel.conf"
        config.write_text("\n".join([f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", *self._lines, ""]))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary_of(self._kind)), str(config), "--sentinel"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError as error:
            return isinstance(error, redis.AuthenticationError)


def usable(replica: dict[str, object]) -> bool:
    return replica.get("master-link-status") == "ok" and int(str(replica.get("slave-priority", 0))) > 0


class Certificates:
    """An authority of our own and what it signed: PEM files in `folder`, made with the openssl program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, authority_key = folder / "ca.crt", folder / "ca.key"
        self._openssl(
            "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=pillion-test-ca",
            "-keyout",
            authority_key,
            "-out",
            self.authority,
        )
        self.both = self._signed("both", "DNS:localhost,IP:127.0.0.1", authority_key)
        self.name_only = self._signed("name", "DNS:localhost", authority_key)

    def server_options(self, pair: tuple[Path, Path], port: int, *more: str) -> tuple[str, ...]:
        """Options for a server that speaks TLS on `port`."""
        certificate, key = pair
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file")
        return ("--tls-port", str(port), *files, str(self.authority), *(more or ("--tls-auth-clients", "no")))

    def _signed(self, name: str, names: str, authority_key: Path) -> tuple[Path, Path]:
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        self._openssl(
            f"req -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN={name}",
            "-keyout",
            key,
            "-out",
            request,
        )
        self._openssl(
            "x509 -req -days 2 -CAcreateserial",
            "-in",
            request,
            "-CA",
            self.authority,
            "-CAkey",
            authority_key,
            "-extfile",
            extensions,
            "-out",
            certificate,
        )
        return certificate, key

    @staticmethod
    def _openssl(words: str, *more: object) -> None:
        command = ["openssl", *words.split(), *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
