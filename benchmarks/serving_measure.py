"""Starts servers, checks what they answer, and asks them in turns."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from serving_load import Clients, Job, Load, post
from serving_peers import Pipeline
from serving_process import HOST, Process, ServerError, free_port
from serving_server import HERE, Rows, Server, Setup, Way, check_rows, threads_environment
from serving_ways import SERVERS
from serving_ways import way as way_of
from tqdm import tqdm

LISTS = "lists"
_CHECKED = 64
# Longer texts may be cut, which peers do at other lengths.
_SHORT = 400
_TOLERANCE = {"torch": 1e-3, "onnx": 1e-3, "onnx-int8": 0.02}
"""Of a probability; what dynamic quantization gives a text depends on its batch."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        ways: To serve.
        clients: Of the loads of single texts.
        list_size: Texts of a list.
        list_clients: That send lists.
        seconds: Of a load in a repeat.
        warm_up: Seconds before it.
        repeats: Of everything.
        texts: That are sent.
    """

    ways: Sequence[Way]
    clients: Sequence[int]
    list_size: int
    list_clients: int
    seconds: float
    warm_up: float
    repeats: int
    texts: Sequence[str]

    @property
    def loads(self) -> list[str]:
        """Names of the loads."""
        return [*map(str, self.clients), LISTS]

    @property
    def lists(self) -> list[Sequence[str]]:
        """The texts as whole lists."""
        size = self.list_size
        return [self.texts[at : at + size] for at in range(0, len(self.texts) - size + 1, size)]


class Engine:
    """The predictor alone, in a process that computes when it is told to.

    Args:
        way: Its engine and bundle.
        setup: Of all.
        bundle: That it loads.

    Raises:
        ServerError: It cannot load it.
    """

    title = "the predictor in process"

    def __init__(self, way: Way, setup: Setup) -> None:
        log = setup.folder / f"{way.name.replace('/', '-')}.txt"
        threads = setup.threads * setup.workers
        bundle = setup.bundle(way.features, way.engine)
        self.process = Process(
            name=way.name,
            command=[
                *(sys.executable, str(HERE / "serving_engine.py")),
                *(str(bundle), way.engine, str(threads)),
            ],
            environment=threads_environment(threads),
            log=log,
            interactive=True,
        )
        try:
            self.classes: list[str] = self._read()["classes"]
        except BaseException:
            self.process.stop()
            raise

    def ask(self, job: dict[str, Any]) -> Any:
        """Do a job, as `serving_engine.py` has it."""
        pipe = self.process.popen.stdin
        assert pipe is not None  # noqa: S101 it is a pipe
        try:
            pipe.write((json.dumps(job) + "\n").encode())
            pipe.flush()
        except OSError as error:
            raise ServerError(f"the engine died: {self.process.told()}") from error
        return self._read()

    def _read(self) -> Any:
        pipe = self.process.popen.stdout
        assert pipe is not None  # noqa: S101 it is a pipe
        line = pipe.readline()
        if not line:
            raise ServerError(f"the engine died: {self.process.told()}")
        return json.loads(line)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A way that can be measured.

    Attributes:
        loads: That it takes.
        measure: Does one of them.
        facts: About it.
    """

    loads: Sequence[str]
    measure: Callable[[str], dict[str, Any]]
    facts: dict[str, Any]


def measure(plan: Plan, setup: Setup, *, save: Callable[[Any], None]) -> dict[str, Any]:
    """All ways, in turns.

    A way that cannot be started, is wrong or fails has an `error`; the others go on.

    Args:
        plan: What to measure.
        setup: Of the servers.
        save: Is given what there is so far, after each repeat.
    """
    found: dict[str, Any] = {"ways": {}}
    latencies: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        clients = stack.enter_context(Clients())
        found["stand_in"] = stand_in(clients, plan, setup)
        ways = {}
        references = References(plan, setup)
        for way in tqdm(plan.ways, "start", unit="server", leave=False):
            with _noting(way.name, found["ways"]):
                ways[way.name] = _start(
                    way, plan, setup, clients=clients, stack=stack, references=references
                )
                found["ways"][way.name] = {"loads": {}, **ways[way.name].facts}
        references.close()
        steps = plan.repeats * sum(len(way.loads) for way in ways.values())
        bar = stack.enter_context(tqdm(total=steps, unit="load"))
        for repeat in range(plan.repeats):
            turn = repeat % max(len(ways), 1)
            for name in [*list(ways)[turn:], *list(ways)[:turn]]:
                for load in ways[name].loads:
                    bar.set_description(f"{name}, {load}")
                    bar.update()
                    if "error" in found["ways"][name]:
                        continue
                    with _noting(name, found["ways"]):
                        one = ways[name].measure(load)
                        latencies.setdefault((name, load), []).extend(one.pop("latencies"))
                        found["ways"][name]["loads"].setdefault(load, []).append(one)
            for (name, load), values in latencies.items():
                pooled = found["ways"][name].setdefault("pooled", {})
                pooled[load] = {"requests": len(values), **quantiles(values)}
            save(found)
    return found


@contextmanager
def _noting(name: str, ways: dict[str, Any]) -> Iterator[None]:
    """What is wrong with a way is noted, and no trouble of the others."""
    try:
        yield
    except (ServerError, OSError) as error:
        ways.setdefault(name, {})["error"] = str(error)
        tqdm.write(f"{name}: {error}", file=sys.stderr)


class References:
    """What the predictor says of the texts that servers are checked by."""

    def __init__(self, plan: Plan, setup: Setup) -> None:
        self.texts = [text for text in plan.texts if len(text) <= _SHORT][:_CHECKED]
        self._setup = setup
        self._engines: dict[Way, Engine] = {}
        self._rows: dict[tuple[Way, int], Rows] = {}

    def rows(self, way: Way, *, size: int) -> Rows:
        """Probabilities of the texts, predicted in lists of `size`."""
        alone = way_of("engine", engine=way.engine, features=way.features)
        if (alone, size) not in self._rows:
            if alone not in self._engines:
                self._engines[alone] = Engine(alone, self._setup)
            engine = self._engines[alone]
            self._rows[alone, size] = engine.ask({"texts": self.texts, "size": size})
        return self._rows[alone, size]

    def close(self) -> None:
        """End the processes."""
        for engine in self._engines.values():
            engine.process.stop()
        self._engines.clear()


def _start(
    way: Way,
    plan: Plan,
    setup: Setup,
    *,
    clients: Clients,
    stack: ExitStack,
    references: References,
) -> Started:
    if way.server == "engine":
        engine = Engine(way, setup)
        stack.callback(engine.process.stop)
        return Started(
            loads=["1", LISTS] if 1 in plan.clients else [LISTS],
            measure=lambda load: _measure_engine(engine, plan, load),
            facts={"title": engine.title, "engine": way.engine, "features": way.features},
        )
    server = SERVERS[way.server](way, setup)
    # Before it is started: an interrupt may come while it starts.
    stack.callback(server.stop)
    server.start()
    difference = _check(server, clients, references)
    server.process.pause()
    return Started(
        loads=plan.loads if server.lists else plan.loads[:-1],
        measure=lambda load: _measure_server(server, clients, plan, load),
        facts={
            "title": server.title,
            "engine": way.engine,
            "features": way.features if server.tabular else "none",
            "largest_difference": difference,
        },
    )


def _check(server: Server, clients: Clients, references: References) -> float:
    """The largest difference of a probability from what the predictor says."""
    way, texts = server.way, references.texts
    if isinstance(server, Pipeline):
        singles = server.expected(texts)
    else:
        singles = references.rows(way, size=1)
    load = clients.run(
        Job(
            port=server.port,
            requests=[server.single(text) for text in texts],
            count=len(texts),
            collect=True,
        )
    )
    _check_failures(way.name, load)
    found = [row for body in load.bodies for row in server.read(body)]
    tolerance = _TOLERANCE[way.engine]
    difference = check_rows(way.name, found, singles, tolerance=tolerance)
    if server.lists:
        load = clients.run(
            Job(port=server.port, requests=[server.many(texts)], count=1, collect=True)
        )
        _check_failures(way.name, load)
        rows = server.read(load.bodies[0])
        expected = references.rows(way, size=len(texts))
        difference = max(difference, check_rows(way.name, rows, expected, tolerance=tolerance))
    return difference


def _measure_server(server: Server, clients: Clients, plan: Plan, load: str) -> dict[str, Any]:
    lists = load == LISTS
    job = Job(
        port=server.port,
        requests=[server.many(texts) for texts in plan.lists]
        if lists
        else [server.single(text) for text in plan.texts],
        clients=plan.list_clients if lists else int(load),
        seconds=plan.seconds,
        warm_up=plan.warm_up,
        minimum=10,
    )
    server.process.resume()
    try:
        server.process.check()
        computed, started = server.process.cpu_seconds(), time.perf_counter()
        done = clients.run(job)
        busy = (server.process.cpu_seconds() - computed) / (time.perf_counter() - started)
    finally:
        server.process.pause()
    _check_failures(server.way.name, done)
    texts = plan.list_size if lists else 1
    rate = texts * len(done.latencies) / done.seconds
    return {
        "latencies": done.latencies,
        "requests": len(done.latencies),
        "texts_per_second": rate,
        "cores": busy,
        "cpu_seconds_per_text": busy / rate,
        "clients_cores": done.cpu_share,
        **quantiles(done.latencies),
    }


def _measure_engine(engine: Engine, plan: Plan, load: str) -> dict[str, Any]:
    size = plan.list_size if load == LISTS else 1
    texts = [text for part in plan.lists for text in part]
    done = engine.ask(
        {"texts": texts, "size": size, "seconds": plan.seconds, "warm_up": plan.warm_up}
    )
    rate = size * len(done["latencies"]) / done["seconds"]
    return {
        "latencies": done["latencies"],
        "requests": len(done["latencies"]),
        "texts_per_second": rate,
        "cores": done["cpu_seconds"] / done["seconds"],
        "cpu_seconds_per_text": done["cpu_seconds"] / done["seconds"] / rate,
        **quantiles(done["latencies"]),
    }


def stand_in(clients: Clients, plan: Plan, setup: Setup) -> dict[str, float]:
    """Requests/s of a server that does nothing: what the clients can send at most."""
    port = free_port()
    process = Process(
        name="stand-in",
        command=[sys.executable, str(HERE / "serving_standin.py"), str(port)],
        log=setup.folder / "stand-in.txt",
    )
    try:
        process.wait(f"http://{HOST}:{port}/", timeout=60)
        most = max(plan.clients)
        requests = [post("/predict", json.dumps({"text": text})) for text in plan.texts]
        done = clients.run(
            Job(port=port, requests=requests, clients=most, seconds=1, warm_up=0.2)
        )
    finally:
        process.stop()
    _check_failures("the stand-in", done)
    return {
        "clients": most,
        "requests_per_second": len(done.latencies) / done.seconds,
        "clients_cores": done.cpu_share,
    }


def _check_failures(name: str, load: Load) -> None:
    if load.failures:
        told = "; ".join(f"{count} x {what}" for what, count in load.failures.items())
        raise ServerError(f"{name} did not answer all requests: {told}")
    if not load.latencies:
        raise ServerError(f"{name} answered nothing in time: give more --seconds")


def quantiles(latencies: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, the smallest value that enough are not above."""
    ordered = sorted(latencies)
    return {
        name: ordered[math.ceil(share * len(ordered)) - 1]
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
