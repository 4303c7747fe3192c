"""The handler in TorchServe's own worker code, without its Java part."""

import importlib.util
import json
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.service import Service

ROOT = Path(__file__).resolve().parents[2]
JSON = "application/json"
GOOD = "Minister confirms 3 new hospitals by 2030"


class Sent(NamedTuple):
    """A request as TorchServe's Java part hands it on: fields of one or of a form."""

    fields: Mapping[str, Any]
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    explain: bool = False


class Got(NamedTuple):
    status: int
    phrase: str
    content: Any


class Worker:
    """What a worker process does with a model archive that was unpacked.

    Args:
        folder: Of the archive's content.
        metrics: The file of `metrics_config`.
    """

    def __init__(self, folder: Path, metrics: Path = ROOT / "serve" / "metrics.yaml") -> None:
        spec = importlib.util.spec_from_file_location("handler", ROOT / "serve" / "handler.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        cache = MetricsCacheYamlImpl(config_file_path=str(metrics))
        cache.initialize_cache()
        cache.model_name = "news"
        self.handler = module.Handler()
        manifest = {"model": {"modelVersion": "abc", "configFile": "model-config.yaml"}}
        self.service = Service(
            "news", str(folder), manifest, self.handler.handle, None, 8, True, cache
        )
        self.service.set_cl_socket(None)
        self.handler.initialize(self.service.context)

    def ask(self, *batch: Sent) -> list[Got]:
        """The answers to a batch, read from what goes back to TorchServe."""
        message = self.service.predict(
            [
                {
                    "requestId": f"request-{number}".encode(),
                    "headers": [
                        {"name": name.encode(), "value": value.encode()}
                        for name, value in {
                            **sent.headers,
                            "explain": str(sent.explain),
                        }.items()
                    ],
                    "parameters": [
                        {"name": name, "value": value, "contentType": sent.content_type}
                        for name, value in sent.fields.items()
                    ],
                }
                for number, sent in enumerate(batch)
            ]
        )
        return _decode(bytes(message), len(batch))


def _decode(message: bytes, count: int) -> list[Got]:
    place = 0

    def number() -> int:
        nonlocal place
        place += 4
        (found,) = struct.unpack("!i", message[place - 4 : place])
        return int(found)

    def text() -> str:
        nonlocal place
        length = number()
        place += length
        return message[place - length : place].decode("ascii")

    assert (number(), text()) == (200, "Prediction success")
    found = []
    for index in range(count):
        assert text() == f"request-{index}"
        assert text() == JSON
        status, phrase = number(), text()
        headers = {text(): text() for _ in range(number())}
        assert headers == {"content-type": JSON}
        found.append(Got(status, phrase, json.loads(text())))
    assert number() == -1
    assert place == len(message)
    return found


@pytest.fixture(scope="module", autouse=True)
def as_before() -> Iterator[None]:
    """A worker changes what its process computes with, and logs."""
    names = ("TS_DECODE_INPUT_REQUEST", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    environment = {name: os.environ.get(name) for name in names}
    loggers = [logging.getLogger(), logging.getLogger("ts.metrics")]
    levels = [logger.level for logger in loggers]
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def unpacked(folder: Path, bundle: Path, **config: Any) -> Path:
    shutil.copytree(bundle, folder / "bundle")
    (folder / "model-config.yaml").write_text(yaml.safe_dump({"maxWorkers": 1} | config))
    return folder


@pytest.fixture(scope="module")
def worker(fusion_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    handler = {"unsure": 0.2, "warm_up": False, "batch_size": 16, "max_depth": 10}
    folder = unpacked(tmp_path_factory.mktemp("archive"), fusion_bundle, handler=handler)
    return Worker(folder)


def sent(content: Any, **kwargs: Any) -> Sent:
    return Sent(fields={"body": bytearray(json.dumps(content).encode())}, **kwargs)


def raw(body: bytes, content_type: str = JSON) -> Sent:
    return Sent(fields={"body": bytearray(body)}, content_type=content_type)


# --- shapes ----------------------------------------------------------------------------


def test_settings_of_the_archive(worker: Worker) -> None:
    model = worker.handler.model
    assert (model.items.name, model.items.version, model.items.unsure) == ("news", "abc", 0.2)
    assert model.items.predictor.batch_size == 16
    assert model.limits.depth == 10
    assert os.environ["TS_DECODE_INPUT_REQUEST"] == "false"


def test_a_setting_that_is_none(fusion_bundle: Path, tmp_path: Path) -> None:
    folder = unpacked(tmp_path, fusion_bundle, handler={"sure": 1})
    with pytest.raises(TypeError, match="'sure'"):
        Worker(folder)


def test_an_archive_without_settings(fusion_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(fusion_bundle, tmp_path / "bundle")
    (tmp_path / "model-config.yaml").write_text("")
    (found,) = Worker(tmp_path).ask(sent({"text": GOOD}))
    assert found.status == 200


def test_every_shape_gives_the_same_probabilities(worker: Worker) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [GOOD]}
    found = worker.ask(
        sent({"text": GOOD}),
        raw(GOOD.encode(), "text/plain"),
        raw(GOOD.encode(), ""),
        Sent(fields={"text": bytearray(GOOD.encode())}, content_type=""),
        Sent(fields={"data": bytearray(GOOD.encode())}, content_type=""),
        Sent(fields={"body": {"text": GOOD}}),
        sent({"inputs": [GOOD]}),
        sent({"instances": [{"text": GOOD}]}),
        sent({"inputs": [tensor]}),
        sent({"text": GOOD}, explain=True),
    )
    assert [answer[:2] for answer in found] == [(200, "OK")] * 10
    (expected,) = worker.handler.model.items.predictor.predict([GOOD])
    predictions = [answer.content for answer in found[:6]]
    predictions += [answer.content["predictions"][0] for answer in found[6:8]]
    predictions.append(found[9].content["prediction"])
    for prediction in predictions:
        assert prediction["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    outputs = {output["name"]: output["data"] for output in found[8].content["outputs"]}
    assert outputs["label"] == [expected.label]
    assert outputs["probabilities"] == pytest.approx(list(expected.probabilities.values()))


def test_explaining_is_decided_by_each_request(worker: Worker) -> None:
    found = worker.ask(
        sent({"text": GOOD}),
        sent({"text": "Rain in Oslo"}, explain=True),
        # TorchServe's own header comes last.
        sent({"text": GOOD}, headers={"explain": "True", "Explain": "true"}),
        sent({"inputs": [GOOD, GOOD]}, explain=True),
    )
    assert ["words" in answer.content for answer in found] == [False, True, False, False]
    assert found[1].content["text"] == "Rain in Oslo"
    assert found[3].status == 400


def test_headers_of_odd_names_do_no_harm(worker: Worker) -> None:
    headers = {"body": "x", "data": "y", "content-type": "z", "text": "Rain"}
    (found,) = worker.ask(sent({"text": GOOD}, headers=headers))
    assert found.status == 200


# --- what bad input gets ---------------------------------------------------------------

DEEP = b'{"text": "a", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
BAD = {
    "empty body": (raw(b""), 400, "not_json"),
    "empty text": (sent({"text": ""}), 422, "empty_text"),
    "whitespace": (sent({"text": " \n\t "}), 422, "empty_text"),
    "nothing that shows": (sent({"text": "\u200b\u202e"}), 422, "empty_text"),
    "control characters only": (sent({"text": "\x00\x07"}), 422, "empty_text"),
    "a megabyte": (sent({"text": "Rain " * 200_000}), 413, "text_too_long"),
    "a megabyte, raw": (raw(b"Rain " * 200_000, "text/plain"), 413, "text_too_long"),
    "wrong type": (sent({"text": 3}), 422, "wrong_type"),
    "missing key": (sent({"headline": "Rain"}), 422, "missing_text"),
    "a list": (sent(["Rain"]), 400, "unknown_shape"),
    "a number": (raw(b"3"), 400, "unknown_shape"),
    "ten thousand items": (sent({"inputs": ["Rain"] * 10_000}), 413, "too_many_items"),
    "invalid UTF-8": (raw(b'{"text": "\xff\xfe"}'), 400, "invalid_utf8"),
    "invalid UTF-8, raw": (raw(b"\xff\xfe", "text/plain"), 400, "invalid_utf8"),
    "deep JSON": (raw(DEEP), 400, "too_deep"),
    "unclosed deep JSON": (raw(b"[" * 100_000), 400, "too_deep"),
    "cut JSON": (raw(b'{"text": "Rain'), 400, "not_json"),
    "NaN": (raw(b'{"text": "Rain", "x": NaN}'), 400, "not_json"),
    "Infinity": (raw(b'{"text": "Rain", "x": Infinity}'), 400, "not_json"),
    "a huge int": (raw(b'{"text": ' + b"9" * 4000 + b"}"), 422, "wrong_type"),
    "a huger int": (raw(b'{"text": "a", "x": ' + b"9" * 9000 + b"}"), 400, "not_json"),
    "duplicate keys": (raw(b'{"text": "a", "text": "b"}'), 400, "not_json"),
    "no fields": (Sent(fields={}), 400, "unknown_shape"),
    "JSON as a form": (
        Sent(fields={'{"text": "a"}': bytearray()}, content_type=""),
        400,
        "unknown_shape",
    ),
}
ODD = {
    "emoji": "🎉 party 👩\u200d👩\u200d👧",
    "right-to-left": "\u202e\u05e1\u05d9\u05e4 ﷺ",
    "control characters": "Rain\x00\x07\x1b[31m in Oslo",
    "metrics": "Rain\n[METRICS]Evil.Count:1|#Level:Host|#hostname:evil,1",
    "HTML": "<script>alert('x')</script><b>Rain</b>",
    "half a surrogate pair": "\ud800 Rain",
    "mojibake": "donâ€™t panic",
    "one letter": "a",
    "very long": "Rain " * 19_999,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_beside_good_ones(worker: Worker, name: str) -> None:
    bad, status, code = BAD[name]
    before, found, after = worker.ask(sent({"text": GOOD}), bad, sent({"text": GOOD}))
    assert (found.status, found.content["error"]["code"]) == (status, code)
    assert found.phrase
    assert list(found.content) == ["error"]
    assert 0 < len(found.content["error"]["message"]) < 300
    (expected,) = worker.handler.model.items.predictor.predict([GOOD])
    for good in (before, after):
        assert good.status == 200
        assert good.content["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.parametrize("name", ODD)
def test_odd_texts_are_predicted(worker: Worker, name: str) -> None:
    (found,) = worker.ask(sent({"text": ODD[name]}))
    assert found.status == 200
    assert sum(found.content["probabilities"].values()) == pytest.approx(1)
    assert found.content["truncated"] is (name == "very long")
    (explained,) = worker.ask(sent({"text": ODD[name]}, explain=True))
    assert explained.status == 200
    assert explained.content["prediction"] == found.content
    text = explained.content["text"]
    for word in explained.content["words"]:
        assert text[word["start"] : word["end"]] == word["text"]


def test_a_list_answers_each_item(worker: Worker) -> None:
    texts = [GOOD, "", None, 3, *ODD.values(), "x" * 100_001, {"txt": "a"}, GOOD]
    (found,) = worker.ask(sent({"inputs": texts}))
    assert found.status == 200
    codes = [item.get("error", {}).get("code") for item in found.content["predictions"]]
    assert codes == [
        None,
        "empty_text",
        "wrong_type",
        "wrong_type",
        *[None] * len(ODD),
        "text_too_long",
        "missing_text",
        None,
    ]


# --- nothing of a request is logged ----------------------------------------------------


def test_no_text_reaches_a_log(
    worker: Worker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = worker.handler.model.items.predictor.engine
    encode = engine.encode

    def fragile(batch: Any) -> Any:
        if any("Zebra" in text for text in batch.texts):
            raise ValueError(f"bad text: {batch.texts}")
        return encode(batch)

    engine.encode = fragile
    try:
        found = worker.ask(
            sent({"text": "Zebra breaks"}),
            sent({"text": "Zebr@", "Zebra": 1}),
            raw(b'{"Zebra": Zebra}'),
            raw(b"Zebra\xff", "text/plain"),
            Sent(fields={"Zebra": bytearray(b"Zebra")}),
            sent({"text": "Zebra"}, explain=True),
        )
    finally:
        del engine.encode
    assert [answer.status for answer in found] == [500, 200, 400, 400, 422, 500]
    out, err = capfd.readouterr()
    logged = out + err + caplog.text
    assert "the model failed on 2 of 3 items: ValueError in" in logged
    assert "ebra" not in logged
    assert "Zebr@" not in logged


# --- metrics ---------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().removeprefix("[METRICS]").partition("|#type:")[0]
        for record in caplog.records
        if record.getMessage().startswith("[METRICS]")
    ]


def test_metrics_of_a_batch(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ts.metrics"):
        worker.ask(
            sent({"inputs": ["", "", 3, "word " * 100]}),
            sent({"text": "Rain"}, explain=True),
            raw(b"{"),
        )
    found = lines(caplog)
    labels = "|#model_name:news,model_version:abc"
    assert {line for line in found if "seconds" not in line and "unsure" not in line} >= {
        f"fakenews_truncated_total.Count:1{labels}",
        f"fakenews_errors_total.Count:2{labels},code:empty_text",
        f"fakenews_errors_total.Count:1{labels},code:wrong_type",
        f"fakenews_errors_total.Count:1{labels},code:not_json",
        f"fakenews_batch_items.Count:5{labels}",
    }
    for name in ("predict", "explain"):
        (line,) = [line for line in found if name in line and "seconds" in line]
        assert 0 < float(line.partition(":")[2].partition("|")[0]) < 100
    assert not [line for line in found if "Failed" in line]


def test_a_batch_of_refused_requests_counts_no_items(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ts.metrics"):
        worker.ask(raw(b"{"))
    found = [line for line in lines(caplog) if line.startswith("fakenews")]
    labels = "|#model_name:news,model_version:abc"
    assert found == [
        f"fakenews_batch_items.Count:0{labels}",
        f"fakenews_errors_total.Count:1{labels},code:not_json",
    ]


def test_torchserves_own_metrics_file_does(
    fusion_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    default = Path(spec.origin).parent / "configs" / "metrics.yaml"
    worker = Worker(unpacked(tmp_path, fusion_bundle), default)
    with caplog.at_level(logging.INFO, "ts.metrics"):
        (found,) = worker.ask(sent({"text": "Rain"}))
    assert found.status == 200
    assert not [line for line in lines(caplog) if line.startswith("fakenews")]


def test_every_metric_is_known_and_torchserves_own_are_kept() -> None:
    ours = yaml.safe_load((ROOT / "serve" / "metrics.yaml").read_text())
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    default = yaml.safe_load(
        (Path(spec.origin).parent / "configs" / "metrics.yaml").read_text()
    )
    assert ours["ts_metrics"] == default["ts_metrics"]
    assert list(ours["model_metrics"]) == ["counter", "gauge", "histogram"]


# --- anything at all -------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.sampled_from(list(ODD.values())[:-1])
ITEMS = (
    TEXTS | st.fixed_dictionaries({"text": TEXTS | st.none() | st.integers()}) | st.integers()
)
SHAPES = (
    st.fixed_dictionaries({"text": TEXTS})
    | st.fixed_dictionaries({"inputs": st.lists(ITEMS, max_size=4)})
    | st.fixed_dictionaries({"instances": st.lists(ITEMS, max_size=4)})
    | st.lists(TEXTS, max_size=3).map(
        lambda data: {
            "inputs": [
                {"name": "text", "datatype": "BYTES", "shape": [len(data)], "data": data}
            ]
        }
    )
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["text", "inputs", "instances", "data"]), inner)
        ),
        max_leaves=8,
    )
)
BODIES = SHAPES.map(lambda shape: json.dumps(shape).encode()) | st.binary(max_size=60)
TYPES = st.sampled_from([JSON, "text/plain", "", "application/x-unknown"])
REQUESTS = st.builds(
    Sent,
    fields=st.dictionaries(
        st.sampled_from(["body", "data", "text", "other"]),
        BODIES | BODIES.map(bytearray) | TEXTS | SHAPES,
        max_size=2,
    ),
    content_type=TYPES,
    explain=st.sampled_from([False, False, False, True]),
)


@settings(max_examples=50)
@given(batch=st.lists(REQUESTS, max_size=6))
def test_anything_gets_an_answer_and_harms_no_neighbour(
    worker: Worker, batch: Sequence[Sent]
) -> None:
    *found, good = worker.ask(*batch, sent({"text": GOOD}))
    for answer in found:
        assert answer.status in (200, 400, 413, 422)
        assert ("error" in answer.content) == (answer.status != 200)
    assert good.status == 200
    (expected,) = worker.handler.model.items.predictor.predict([GOOD])
    assert good.content["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
