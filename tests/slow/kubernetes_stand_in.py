"""A stand-in for a cluster of Kubernetes with one node, for pods that run a line of shell.

    python tests/slow/kubernetes_stand_in.py FOLDER

Every pod is checked against Kubernetes' own schema, and left as FOLDER/NAME.json. Its line
runs in this working copy, with this interpreter as `python`, in place of the image.
FOLDER/kubeconfig appears when it answers.
"""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import kubernetes_validate

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.37"

Object = dict[str, Any]


class Node:
    """Runs pods.

    Args:
        folder: For what was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: dict[str, Object] = {}
        self.logs: dict[str, bytes] = {}

    def create(self, pod: Object) -> Object:
        """Take a pod and start its line."""
        given = json.loads(json.dumps(pod))
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod"} | given, VERSION, strict=True
        )
        meta = pod["metadata"]
        (self.folder / f"{meta['name']}.json").write_text(json.dumps(given))
        meta |= {"uid": str(uuid4()), "resourceVersion": "1", "creationTimestamp": _now()}
        pod |= {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Pending"}}
        self.pods[meta["name"]] = pod
        threading.Thread(target=self._run, args=(pod,), daemon=True).start()
        return pod

    def listed(self, selector: str) -> Object:
        """Pods with some labels."""
        wanted = [
            part.split("=", 1)
            for part in selector.split(",")
            if "=" in part and "!" not in part
        ]
        unwanted = [part.split("!=", 1) for part in selector.split(",") if "!=" in part]
        items = [
            pod
            for pod in self.pods.values()
            if all(_labels(pod).get(key) == value for key, value in wanted)
            and not any(_labels(pod).get(key) == value for key, value in unwanted)
        ]
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}

    def _run(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        began = _now()
        pod["status"] = _status(container, "Running", {"running": {"startedAt": began}})
        # What the image has between its entry point and the line: tini, and files of secrets.
        assert container["command"] == ["tini", "--", "with-secrets", "sh", "-c"]
        env = {each["name"]: each.get("value", "") for each in container.get("env", ())}
        done = subprocess.run(
            ["sh", "-c", *container["args"]],
            cwd=ROOT,
            env=os.environ
            | env
            | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.logs[name] = done.stdout
        ended = {
            "exitCode": done.returncode,
            "reason": "Error" if done.returncode else "Completed",
            "startedAt": began,
            "finishedAt": _now(),
        }
        phase = "Failed" if done.returncode else "Succeeded"
        pod["status"] = _status(container, phase, {"terminated": ended})


def _labels(pod: Object) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _status(container: Object, phase: str, state: Object) -> Object:
    return {
        "phase": phase,
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": phase == "Running",
                "restartCount": 0,
                "state": state,
            }
        ],
    }


class Api(BaseHTTPRequestHandler):
    """The paths of Kubernetes' API that an operator of pods asks for."""

    protocol_version = "HTTP/1.1"
    node: Node

    def do_GET(self) -> None:
        """A pod, its log, or a list."""
        parts, query = self._asked()
        match parts:
            case ["pods"]:
                self._answer(self.node.listed(query.get("labelSelector", [""])[0]))
            case ["pods", name] if name in self.node.pods:
                self._answer(self.node.pods[name])
            case ["pods", name, "log"]:
                self._send(200, self.node.logs.get(name, b""), "text/plain")
            case ["events"]:
                self._answer(
                    {"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": []}
                )
            case _:
                self._answer({"kind": "Status", "status": "Failure", "code": 404}, 404)

    def do_POST(self) -> None:
        """A pod to start."""
        try:
            self._answer(self.node.create(self._body()), 201)
        except kubernetes_validate.ValidationError as error:
            self._answer({"kind": "Status", "status": "Failure", "message": str(error)}, 422)

    def do_PATCH(self) -> None:
        """New labels and annotations."""
        parts, _ = self._asked()
        pod = self.node.pods[parts[1]]
        for key, values in self._body()["metadata"].items():
            if isinstance(values, dict):
                pod["metadata"][key] = (pod["metadata"].get(key) or {}) | values
        self._answer(pod)

    def do_DELETE(self) -> None:
        """A pod that is done."""
        parts, _ = self._asked()
        self._answer(self.node.pods.pop(parts[1]))

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""

    def _asked(self) -> tuple[list[str], dict[str, list[str]]]:
        """The parts of the path after the namespace, and the query."""
        url = urlsplit(self.path)
        return url.path.split("/")[5:], parse_qs(url.query)

    def _body(self) -> Object:
        found: Object = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def _answer(self, content: Object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Answer until ended."""
    folder = Path(sys.argv[1])
    Api.node = Node(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    cluster = {"server": f"http://127.0.0.1:{server.server_address[1]}"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "current-context": "here",
    }
    draft = folder / "kubeconfig.draft"
    draft.write_text(json.dumps(config))
    draft.replace(folder / "kubeconfig")
    server.serve_forever()


if __name__ == "__main__":
    main()
