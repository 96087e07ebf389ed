"""Seconds in which the page of `alexnet serve` opens and answers, for one user and for twenty, and its memory.

    python benchmarks/serve.py PICTURE models/NAME [--vectors 10000] [--requests 1000]

The index holds made-up vectors, as in benchmarks/search.py; the server is a process of its own, whose CPU time and
memory are read from /proc. "opens" is from the start of the process to the whole page with its scripts; "first answer"
includes opening index and model. Peak memory is that of the server after all requests.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
from common import RESULTS
from search import make_workspace

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.serving.app import PAGE

USERS = 20
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A running server."""

    def __init__(self, workspace: Path) -> None:
        command = [sys.executable, "-m", "alexnet_cli", "serve", "--port", "0", "--json", "--workspace", str(workspace)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        url = self.process.stdout.readline().split('"')[3]
        self.user = httpx.Client(base_url=url, timeout=600)

    def cpu(self) -> float:
        """Seconds of CPU time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def megabytes(self) -> float:
        """Of memory that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def search(self, content: bytes) -> None:
        """As the page asks."""
        answer = self.user.post("/api/search?k=200", content=content)
        answer.raise_for_status()
        assert len(answer.json()["neighbours"]) == 200


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def open_page(user: httpx.Client) -> None:
    for address in ("/", *(f"/page/{file.name}" for file in PAGE.iterdir() if file.suffix in (".js", ".css"))):
        user.get(address).raise_for_status()


def measure(workspace: Path, content: bytes, requests: int) -> dict[str, object]:
    """Figures of one server, by name."""
    began = time.perf_counter()
    server = Process(workspace)
    try:
        open_page(server.user)
        opens, opens_cpu = time.perf_counter() - began, server.cpu()
        first = seconds(lambda: server.search(content))
        cpu = server.cpu()
        answers = [seconds(lambda: server.search(content)) for _ in range(20)]
        answer_cpu = (server.cpu() - cpu) / len(answers)
        with ThreadPoolExecutor(USERS) as pool:
            together = list(pool.map(lambda _: seconds(lambda: server.search(content)), range(USERS)))
        before = server.megabytes()
        for _ in range(requests):
            server.search(content)
        return {
            "opens_seconds": opens,
            "opens_cpu_seconds": opens_cpu,
            "first_answer_seconds": first,
            "answer_seconds": {"median": statistics.median(answers), "highest": max(answers)},
            "answer_cpu_seconds": answer_cpu,
            f"{USERS}_at_once_seconds": {"median": statistics.median(together), "highest": max(together)},
            "megabytes": {"before": before, f"after {requests} requests": server.megabytes()},
        }
    finally:
        server.process.terminate()
        server.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--like", type=Path)
    parser.add_argument("--vectors", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        make_workspace(Path(workspace), given.model, given.like, given.vectors)
        found = measure(Path(workspace), given.picture.read_bytes(), given.requests)
    load = os.getloadavg()[0]
    write_json(
        RESULTS / "serve.json",
        {"name": "serve", "vectors": given.vectors, "load_average": load, **environment(), "found": found},
    )
    for name, figure in found.items():
        print(f"  {name}: {figure}")
    print(f"  load average of the machine: {load:.1f}")


if __name__ == "__main__":
    main()
