"""Fetch from a web API that often refuses and sometimes never answers, and get everything all the same.

The API runs in this program on 127.0.0.1, so nothing outside is needed. What it does to each request
for a city is drawn from the city's name and the request's number, so every run shows the same.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.request import urlopen

from taskq import Retry, TaskQueue, task

CITIES = ["Accra", "Bogota", "Cairo", "Delhi", "Essen", "Hanoi", "Izmir", "Jaipur", "Kyoto", "Lima"]


@task(timeout=1.0, retry=Retry(8, delay=0.05, on=(OSError,)))  # HTTP errors and timeouts are OSErrors
def temperature(url: str) -> float:
    """Ask the API for one city's temperature in degrees Celsius."""
    with urlopen(url) as answer:  # noqa: S310 - the address is our own server's
        return float(json.load(answer)["celsius"])


class FlakyAPI(BaseHTTPRequestHandler):
    """Answer in time, or with 503, or far too late."""

    requests: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        """Draw this request's fate from its path and number."""
        self.requests[self.path] += 1
        fate = random.Random(f"{self.path} {self.requests[self.path]}")
        mood = fate.random()
        if mood < 0.1:  # noqa: PLR2004 - one request in ten gets no answer before its job's timeout
            time.sleep(10)
        elif mood < 0.4:  # noqa: PLR2004 - three in ten are refused
            self.send_error(503)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"celsius": round(fate.uniform(-5, 40), 1)}).encode())

    def log_message(self, *_args: object) -> None:
        """Keep quiet: the failures are wanted."""


def main() -> None:
    """Fetch all cities side by side and show how many attempts each has cost."""
    with ThreadingHTTPServer(("127.0.0.1", 0), FlakyAPI) as server, TaskQueue() as queue:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        jobs = {city: queue.submit(temperature, f"{address}/{city}") for city in CITIES}
        for city, job in jobs.items():
            print(f"{city:8} {job.result():5.1f} °C   attempts: {job.attempts}")
        server.shutdown()


if __name__ == "__main__":
    main()
