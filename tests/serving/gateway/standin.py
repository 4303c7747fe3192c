"""A stand-in for TorchServe: its inference API, with failures on demand.

    python standin.py PORT

Says `ready` when it listens. `PUT /control` with {"*" or VERSION: {...}} sets how versions
behave; `GET /control` tells what was asked of them.

    delay    seconds before an answer
    status   answers with this status instead
    share    of the requests to which delay and status apply, every n-th
    hang     never answers
    reset    closes the connection without an answer
    token    requests must carry it
    internal items answer with their own internal error
    short    answers have an item too few
    answer   what predictions have instead of what is made up
    thinking seconds before the explanation of a text, by the text
    older    knows of no details
    details  gives these instead of what is made up
"""

import asyncio
import base64
import hashlib
import json
import re
import struct
import sys
from typing import Any

import uvicorn

behaviour: dict[str, dict[str, Any]] = {}
asked: list[dict[str, Any]] = []
counts: dict[str, int] = {}


def details(text: str, wanted: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "features" in wanted:
        tabular = struct.pack("<2f", len(text), 0.1)
        found = {"tokens": len(text.split()) + 2, "unknown_tokens": text.count("🎉")}
        found["tabular"] = base64.b64encode(tabular).decode()
    if "embeddings" in wanted:
        found["embedding"] = base64.b64encode(
            struct.pack("<3e", 1, -0.5, len(text) % 99)
        ).decode()
    return found


def predict(item: Any, version: str, wanted: Any = None) -> dict[str, Any]:
    how = behaviour.get(version, behaviour.get("*", {}))
    text = item if isinstance(item, str) else item["text"]
    if "MISSING" in text:
        return {"error": {"code": "missing_column", "message": "the column age is missing"}}
    number = hashlib.sha256(text.encode()).digest()[0] / 255
    return {
        "label": "real" if number >= 0.5 else "fake",
        "probabilities": {"fake": 1 - number, "real": number},
        "unsure": abs(number - 0.5) < 0.1,
        "truncated": len(text) > 1000,
        "threshold": 0.5,
        "positive": "real",
        "band": 0.1,
        "model": "fakenews",
        "model_version": version,
        **how.get("answer", {}),
        **({"details": how.get("details", details(text, wanted))} if wanted else {}),
    }


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def answer(send: Any, status: int, content: Any) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def control(scope: Any, body: bytes, send: Any) -> None:
    if scope["method"] == "PUT":
        behaviour.clear()
        behaviour.update(json.loads(body))
        asked.clear()
    await answer(send, 200, {"asked": asked, "counts": counts})


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: C901 its moods are many
    if scope["type"] != "http":
        return
    body = await read(receive)
    if scope["path"] == "/control":
        await control(scope, body, send)
        return
    _, kind, _, version = scope["path"].split("/")
    how = behaviour.get(version, behaviour.get("*", {}))
    counts[version] = number = counts.get(version, 0) + 1
    token = how.get("token")
    if token and (b"authorization", f"Bearer {token}".encode()) not in scope["headers"]:
        await answer(
            send, 400, {"code": 400, "type": "InvalidKeyException", "message": "Token"}
        )
        return
    content = json.loads(body)
    if len(asked) < 10_000:
        asked.append(
            {
                "path": scope["path"],
                "items": len(content.get("inputs", [0])),
                "details": content.get("details"),
            }
        )
    wanted = None if how.get("older") else content.get("details")
    if number % how.get("every", 1) == 0:
        await asyncio.sleep(how.get("delay", 0))
        if how.get("hang"):
            await asyncio.sleep(3600)
        if how.get("reset"):
            scope["extensions"]["reset"]()
        if "status" in how:
            await answer(send, how["status"], {"code": how["status"], "message": "as asked"})
            return
    if kind == "explanations":
        item = content["inputs"][0] if "inputs" in content else content
        await asyncio.sleep(how.get("thinking", {}).get(item["text"], 0))
        found = explain(item, version, wanted)
        if "error" in found["prediction"] and "inputs" in content:
            found = {"predictions": [found["prediction"]]}
        await answer(send, 200, found)
        return
    found = [predict(item, version, wanted) for item in content["inputs"]]
    if how.get("internal"):
        found = [{"error": {"code": "internal", "message": "failed"}} for _ in found]
    if how.get("short"):
        found = found[1:]
    await answer(
        send, 200, {"predictions": found, "model": "fakenews", "model_version": version}
    )


def explain(content: Any, version: str, wanted: Any) -> dict[str, Any]:
    text = content["text"]
    prediction = predict(content, version, wanted)
    words = [
        {
            "text": found.group(),
            "start": found.start(),
            "end": found.end(),
            "attribution": hashlib.sha256(found.group().encode()).digest()[0] / 128 - 1,
        }
        for found in re.finditer(r"\w+", text)
    ]
    return {
        "prediction": prediction,
        "target": prediction.get("label"),
        "words": words,
        "text": text,
        "completeness_error": 0.0,
    }


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


if __name__ == "__main__":
    config = uvicorn.Config(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
    Server(config).run()
