"""What an answer costs: our runner, MLServer, and onnxruntime alone, on one model and one machine.

CPU is that of the server process, from `/proc`; requests come from an asyncio client that shares
the cores. MLServer 1.7.1 lives in its own environment below `build/`, which is made when it is
missing. `--requests 1000 --connections 1,8 --rounds 7` change the sizes, `--no-peer` leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from edge_agent.runners import Load, Runners  # noqa: E402 - after the path is set
from tests.bench.memory import alone  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.bench.serving_sdk import in_process  # noqa: E402 - the same
from tests.fakes.bundles import BundleOnDisk, make_bundle  # noqa: E402 - the same

PEER = ROOT / "build" / "mlserver" / "venv"
PEER_VERSION = "1.7.1"
FEATURES = 12
WARM_UP = 100
MB = 1e6

Where = str | tuple[str, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one series of requests."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float


# --- asking ---------------------------------------------------------------------------------------


async def ask(where: Where, request: bytes, count: int) -> list[float]:
    """Seconds of each of `count` requests on one connection, one after the other."""
    if isinstance(where, str):
        reader, writer = await asyncio.open_unix_connection(where)
    else:
        reader, writer = await asyncio.open_connection(*where)
    spent = []
    for _ in range(count):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise SystemExit(f"a request failed: {head.decode()}")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
        spent.append(time.perf_counter() - started)
    writer.close()
    return spent


def series(pid: int, where: Where, request: bytes, connections: int, count: int) -> Cost:
    async def all_of_them(each: int) -> list[float]:
        spent = await asyncio.gather(*(ask(where, request, each) for _ in range(connections)))
        return [second for one in spent for second in one]

    asyncio.run(all_of_them(max(1, WARM_UP // connections)))
    began, cpu = time.perf_counter(), cpu_of(pid)
    spent = asyncio.run(all_of_them(count // connections))
    seconds, cpu = time.perf_counter() - began, cpu_of(pid) - cpu
    spent.sort()
    return Cost(
        cpu / len(spent) * 1e6,
        len(spent) / seconds,
        statistics.median(spent) * 1e6,
        spent[int(len(spent) * 0.99)] * 1e6,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """One row's requests: who answers them, and how they are sent."""

    what: str
    pid: int
    where: Where
    request: bytes
    connections: int


def rounds(asked: list[Asked], count: int, number: int) -> dict[str, Cost]:
    """The round with the least CPU of each: other work on the machine only ever adds to it.

    Everybody has a turn in every round, so that the machine's moods meet all of them.
    """
    best: dict[str, Cost] = {}
    for _ in range(number):
        for each in asked:
            cost = series(each.pid, each.where, each.request, each.connections, count)
            if each.what not in best or cost.cpu_us < best[each.what].cpu_us:
                best[each.what] = cost
    return best


def as_json(model: str, row: Sequence[float]) -> bytes:
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, len(row)], "data": list(row)}
    return _post(model, json.dumps({"inputs": [tensor]}).encode())


def as_binary(model: str, row: Sequence[float]) -> bytes:
    """As stock clients send it: binary there, and back."""
    data = np.array([row], np.float32).tobytes()
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, len(row)]}
    text = json.dumps(
        {
            "inputs": [tensor | {"parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return _post(model, text + data, f"Inference-Header-Content-Length: {len(text)}\r\n")


def _post(model: str, body: bytes, more: str = "") -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


# --- measuring ------------------------------------------------------------------------------------


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has used, in nanosecond steps."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def bare_run_us(model: Path, row: Sequence[float], count: int) -> float:
    """Median microseconds of `InferenceSession.run` in a process that does nothing else."""
    script = (
        "import onnxruntime, numpy, time, statistics, sys\n"
        "o = onnxruntime.SessionOptions(); o.intra_op_num_threads = o.inter_op_num_threads = 1\n"
        "o.enable_cpu_mem_arena = False\n"
        "s = onnxruntime.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])\n"
        "x = {'pixels': numpy.array([eval(sys.argv[2])], numpy.float32)}\n"
        "times = []\n"
        "for _ in range(int(sys.argv[3])):\n"
        "    t = time.perf_counter(); s.run(['label', 'probabilities'], x)\n"
        "    times.append(time.perf_counter() - t)\n"
        "print(statistics.median(times) * 1e6)\n"
    )
    arguments = [sys.executable, "-c", script, str(model), repr(list(row)), str(count)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


# --- ours -----------------------------------------------------------------------------------------


def load_of(bundle: BundleOnDisk) -> Load:
    return Load(bundle.model, bundle.digest, bundle.manifest, bundle.path)


@contextmanager
def ours(directory: Path, load: Load) -> Iterator[tuple[Runners, int]]:
    runners = Runners(directory / "run", port=0)
    runners.adopt()
    view = runners.start((load,))
    runners.promote(view.id)
    try:
        yield runners, view.pid
    finally:
        for each in runners.views():
            runners.kill(each.id)
        runners.close()


# --- peer -----------------------------------------------------------------------------------------


def prepare_peer() -> bool:
    if not (PEER / "bin" / "mlserver").exists():
        PEER.parent.mkdir(parents=True, exist_ok=True)
        commands: list[list[str | Path]] = [
            [sys.executable, "-m", "venv", PEER],
            [PEER / "bin" / "pip", "install", "-q", f"mlserver=={PEER_VERSION}", "onnxruntime"],
        ]
        try:
            for command in commands:
                subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"MLServer is left out: {error}", file=sys.stderr)
            return False
    return True


@contextmanager
def peer(directory: Path, model: Path) -> Iterator[tuple[int, int]]:
    """(process id, port) of an MLServer that serves the same file in its own process."""
    from tests.fakes.mosquitto import free_port

    home = directory / "mlserver"
    home.mkdir()
    (home / "runtime.py").write_text(
        (Path(__file__).parent / "serving_peer" / "runtime.py").read_text()
    )
    port = free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port()}
    settings |= {"metrics_port": free_port(), "parallel_workers": 0, "debug": False}
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "toy",
                "implementation": "runtime.Onnx",
                "parameters": {"uri": str(model), "version": "v1"},
            }
        )
    )
    with (home / "log").open("w") as output:
        process = subprocess.Popen(
            [PEER / "bin" / "mlserver", "start", home],
            cwd=home,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("MLServer did not start: " + (home / "log").read_text()[-2000:])
            time.sleep(0.2)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/models/toy/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


# --- rows -----------------------------------------------------------------------------------------


def cost_rows(what: str, own: Cost, other: Cost | None, *, goal: bool) -> list[Row]:
    who = f"MLServer {PEER_VERSION}, JSON" if other else ""
    ratio = own.cpu_us / other.cpu_us if other else None
    met = None if ratio is None or not goal else ratio <= 1 / 8
    return [
        Row(
            f"{what}: CPU per request",
            own.cpu_us,
            "µs",
            other.cpu_us if other else None,
            who,
            "≤ ⅛" if goal else "",
            met,
        ),
        Row(f"{what}: requests", own.per_second, "/s", other.per_second if other else None, who),
        Row(f"{what}: median", own.p50_us, "µs", other.p50_us if other else None, who),
        Row(f"{what}: 99 % below", own.p99_us, "µs", other.p99_us if other else None, who),
    ]


def memory_row(pid: int, other: int | None) -> Row:
    """Both as if they alone used their files: this process has some of ours mapped as well."""
    own, theirs = alone([pid]) / MB, alone([other]) / MB if other else None
    who = f"MLServer {PEER_VERSION}" if other else ""
    met = own <= theirs / 2 if theirs else None
    return Row("serving process: PSS, alone", own, "MB", theirs, who, "≤ ½", met)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", default="1,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    row = [round(0.1 * n - 0.5, 3) for n in range(FEATURES)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="serving-") as name, ExitStack() as stack:
        directory = Path(name)
        bundle = make_bundle(directory / "bundles", features=FEATURES)
        numbers = [int(text) for text in options.connections.split(",")]
        runners, pid = stack.enter_context(ours(directory, load_of(bundle)))
        places: dict[str, Where] = {
            "TCP": ("127.0.0.1", runners.port),
            "Unix socket": str(directory / "run" / "infer.sock"),
        }
        asked = [
            Asked(f"{form}, {place}, {n} at once", pid, where, request, n)
            for n in numbers
            for place, where in places.items()
            for form, request in (
                ("JSON", as_json("toy", row)),
                ("binary", as_binary("toy", row)),
            )
        ]
        theirs: dict[int, Asked] = {}
        if not options.no_peer and prepare_peer():
            their_pid, port = stack.enter_context(peer(directory, bundle.path / "model.onnx"))
            for n in numbers:
                where = ("127.0.0.1", port)
                theirs[n] = Asked(f"peer, {n} at once", their_pid, where, as_json("toy", row), n)
        costs = rounds([*theirs.values(), *asked], options.requests, options.rounds)
        rows.append(Row("run() alone", bare_run_us(bundle.path / "model.onnx", row, 5000), "µs"))
        for each in asked:
            other = costs[theirs[each.connections].what] if theirs else None
            goal = each.what.startswith("JSON, TCP")
            rows += cost_rows(each.what, costs[each.what], other, goal=goal)
        rows.append(memory_row(pid, next((each.pid for each in theirs.values()), None)))
    rows += in_process()
    return publish("serving", rows)


if __name__ == "__main__":
    raise SystemExit(main())
