"""Checks that the API matches its OpenAPI document: a fuzzer sends valid and invalid requests to a real server.

Usage: fuzz.py VINOPS SCHEMATHESIS. The server is a demonstration with a few lots, which runs until it receives SIGTERM.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

TIMEOUT_SECONDS = 120
# Only a cursor that a page returned is valid, and a schema cannot express that.
EXCLUDED_CHECK = "positive_data_acceptance"


def get_json(address, path):
    with urllib.request.urlopen(f"http://{address}/api/v1{path}", timeout=10) as response:
        return json.load(response)


def main(vinops, schemathesis):
    with tempfile.TemporaryDirectory(prefix="vinops-fuzz-") as folder:
        log, summary = (os.path.join(folder, name) for name in ("log", "summary"))
        with open(log, "w") as to_log, open(summary, "w") as to_summary:
            server = subprocess.Popen(
                [vinops, "demo", "--rows", "1500", "--windows", "3", "--json", "--listen", "127.0.0.1:0"],
                env={**os.environ, "VINOPS_LOG": "info", "VINOPS_LOG_FORMAT": "json"},
                stdout=to_summary,
                stderr=to_log,
            )
        try:
            address, lots = wait(server, log)
            return fuzz(schemathesis, folder, address, lots)
        finally:
            server.terminate()
            server.wait(TIMEOUT_SECONDS)


def wait(server, log):
    """Returns the server's address and some lots, once the last window is applied and in the search results."""
    until = time.monotonic() + TIMEOUT_SECONDS
    address = None
    while time.monotonic() < until:
        if server.poll() is not None:
            sys.exit("the server ended:\n" + open(log).read())
        time.sleep(0.2)
        if address is None:
            lines = [line for line in open(log) if line.startswith('{"') and '"address"' in line]
            address = json.loads(lines[0])["address"] if lines else None
            continue
        windows = get_json(address, "/windows")["windows"]
        lots = get_json(address, "/search?limit=20")["lots"]
        if len(windows) == 3 and windows[0]["state"] == "applied" and lots:
            return address, lots
    sys.exit("the server returns no lots:\n" + open(log).read())


def fuzz(schemathesis, folder, address, lots):
    # The fuzzer cannot guess existing lots and vehicles, so they are set here. The tests cover unknown ones.
    settings = os.path.join(folder, "schemathesis.toml")
    with open(settings, "w") as file:
        file.write(
            f"""
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 414, 431]

[[operations]]
include-path-regex = "lots"
parameters = {{ "path.lot" = {json.dumps(lots[0]["lot"])} }}

[[operations]]
include-path-regex = "vehicles"
parameters = {{ "path.vin" = {json.dumps(lots[0]["vehicle"]["vin"])} }}

[[operations]]
include-path-regex = "domain"
parameters = {{ "path.domain" = "title_types" }}
"""
        )
    command = [
        schemathesis,
        "--config-file",
        settings,
        "run",
        f"http://{address}/api/v1/openapi.json",
        "--checks",
        "all",
        "--exclude-checks",
        EXCLUDED_CHECK,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "40",
        "--seed",
        "1",
        "--suppress-health-check",
        "all",
        "--no-color",
    ]
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
