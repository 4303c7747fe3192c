"""The ways of serving by name: SERVER[/ENGINE][/plain], as in `ours/torch/plain`.

Plain ways serve the second bundle, whose features are cheaper.
"""

from collections.abc import Sequence

from serving_ours import Gateway, Ours
from serving_peers import BentoML, Example, LitServe, MLflow, Pipeline
from serving_server import Server, Way

PEERS: dict[str, type[Server]] = {
    "example": Example,
    "litserve": LitServe,
    "bentoml": BentoML,
    "mlflow": MLflow,
    "pipeline": Pipeline,
}
SERVERS: dict[str, type[Server]] = {"ours": Ours, "gateway": Gateway, **PEERS}


def parse(text: str) -> Way:
    """Read SERVER[/ENGINE][/plain].

    Raises:
        ValueError: There is no such way.
    """
    server, *rest = text.split("/")
    if server not in (*SERVERS, "engine"):
        raise ValueError(f"{text!r}: the servers are engine, {', '.join(SERVERS)}")
    known = SERVERS.get(server, Server).engines
    engine, features = known[0], "full"
    for part in rest:
        if part == "plain":
            features = part
        elif part in known:
            engine = part
        else:
            raise ValueError(f"{text!r}: {server} takes {', '.join(known)} and plain")
    return way(server, engine=engine, features=features)


def way(server: str, *, engine: str, features: str) -> Way:
    """A way, with its shortest name."""
    parts: Sequence[str] = [
        server,
        *([engine] if engine != SERVERS.get(server, Server).engines[0] else []),
        *(["plain"] if features == "plain" else []),
    ]
    return Way(name="/".join(parts), server=server, engine=engine, features=features)
