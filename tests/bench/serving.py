"""What an answer costs: our runner, MLServer, and onnxruntime alone, on one model and one machine.

CPU is that of the server process, from `/proc`; requests come from an asyncio client that shares
the cores. MLServer 1.7.1 lives in its own environment below `build/`, which is made when it is
missing. `--requests 1000 --connections 1,8 --rounds 7` change the sizes, `--no-peer` leaves it out.

Long because one run compares all of them side by side, with the same callers.
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
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from edge_agent.runners import Load, Runners  # noqa: E402 - after the path is set
from protocol.members import Contract, TensorSpec  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.bench.serving_sdk import in_process  # noqa: E402 - the same
from tests.fakes.bundles import BundleOnDisk, make_bundle  # noqa: E402 - the same
from tests.fakes.serving import write_bundle  # noqa: E402 - the same

PEER = ROOT / "build" / "mlserver" / "venv"
PEER_VERSION = "1.7.1"
FEATURES = 12
WARM_UP = 100

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


def memory_of(pid: int) -> dict[str, float]:
    """Megabytes by name, from smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


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


# --- memory ---------------------------------------------------------------------------------------


def large_load(directory: Path, layers: int = 13, width: int = 1024) -> Load:
    """A model of 54 MB of weights, in a file of their own as `outrider model build` keeps them."""
    rng = np.random.default_rng(1)
    matrices = [rng.normal(0, 0.03, (width, width)).astype(np.float32) for _ in range(layers)]
    size = matrices[0].nbytes
    tensors = []
    for number in range(layers):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[width, width])
        tensor.data_location = TensorProto.EXTERNAL
        said = {"location": "weights.bin", "offset": number * size, "length": size}
        for key, value in said.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    names = ["pixels", *(f"h{number}" for number in range(1, layers)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [names[number], f"w{number}"], [names[number + 1]])
            for number in range(layers)
        ],
        "large",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    contract = Contract(
        (TensorSpec("pixels", "FP32", (-1, width)),), (TensorSpec("y", "FP32", (-1, width)),)
    )
    weights = b"".join(matrix.tobytes() for matrix in matrices)
    return write_bundle(directory, "large", contract, proto.SerializeToString(), weights)


SUPERVISOR = """
import sys
sys.path.insert(0, {root!r})
import edge_agent.wiring
from pathlib import Path
from edge_agent.runners import Runners
from tests.fakes.supervisor import load_of
runners = Runners(Path({run!r}), port=0)
runners.adopt()
load = load_of(Path({bundle!r}))
serving = runners.start((load,))
runners.probe(serving.id, load.model)
runners.promote(serving.id)
print(serving.pid, flush=True)
sys.stdin.readline()
candidate = runners.start((load,))
runners.probe(candidate.id, load.model)
runners.promote(candidate.id)
print(candidate.pid, flush=True)
sys.stdin.readline()
for view in runners.views():
    runners.kill(view.id)
"""
"""All modules of an agent, and its runners; no broker and no outbox."""


def agent_memory(directory: Path, bundle: BundleOnDisk) -> tuple[float, float]:
    """PSS in MB of supervisor and runner: steady, and while two runners are up."""
    script = SUPERVISOR.format(
        root=str(ROOT), run=str(directory / "agent"), bundle=str(bundle.path)
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pids = [process.pid, int(process.stdout.readline())]
    steady = sum(memory_of(pid)["Pss"] for pid in pids)
    process.stdin.write("\n")
    process.stdin.flush()
    pids.append(int(process.stdout.readline()))
    promoting = sum(memory_of(pid)["Pss"] for pid in pids)
    process.communicate("\n")
    return steady, promoting


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


def memory_rows(own: dict[str, float], other: dict[str, float] | None) -> list[Row]:
    rows = []
    for name, label in (("Pss", "PSS"), ("Rss", "RSS")):
        theirs = other[name] if other else None
        goal = "≤ ½" if name == "Pss" else ""
        met = own[name] <= theirs / 2 if theirs and goal else None
        who = f"MLServer {PEER_VERSION}" if other else ""
        rows.append(Row(f"serving process: {label}", own[name], "MB", theirs, who, goal, met))
    return rows


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
        other_memory = next((memory_of(each.pid) for each in theirs.values()), None)
        rows += memory_rows(memory_of(pid), other_memory)
        small = memory_of(pid)["Private_Dirty"]
        stack.close()
        with ours(directory / "large", large_load(directory / "large-bundle")) as (runners, pid):
            where = ("127.0.0.1", runners.port)
            series(pid, where, as_json("large", [0.1] * 1024), 1, 100)
            added = memory_of(pid)["Private_Dirty"] - small
            rows.append(
                Row("a 50 MB model adds private dirty", added, "MB", None, "", "≤ 25", added <= 25)
            )
        steady, promoting = agent_memory(directory, bundle)
        rows += [
            Row("supervisor and runner: PSS", steady, "MB", None, "", "≤ 110", steady <= 110),
            Row(
                "supervisor, two runners: PSS", promoting, "MB", None, "", "≤ 150", promoting <= 150
            ),
        ]
    rows += in_process()
    return publish("serving", rows)


if __name__ == "__main__":
    raise SystemExit(main())
