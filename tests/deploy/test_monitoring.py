"""What Prometheus, Alertmanager and Grafana are told, held against what is really exported."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as compose_config
from hydra import initialize_config_dir
from prometheus_client.metrics_core import Metric

from fakenews.config import register_resolvers
from fakenews.monitoring.metrics import Metrics as MonitorMetrics
from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict
from fakenews.serving.gateway.metrics import Metrics as GatewayMetrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules" / "fakenews.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))

# Of every target, and of every alert.
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity", "part"}}
OF_TARGETS = {"job", "instance"}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}

_WORDS = {
    *("by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"),
    *("and", "or", "unless", "inf", "nan"),
}


def verdict() -> Verdict:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    check = Check(
        key="a",
        kind=Kind.DRIFT,
        state=State.OK,
        message="",
        value=1,
        threshold=1,
        p_value=1,
        effect=1,
    )
    return Verdict(
        model="m",
        model_version="1",
        checked_at=now,
        window=Span(start=now, end=now, rows=1, labelled=1),
        checks=(check,),
    )


def exported() -> dict[str, set[str]]:
    """Every metric that there is, with its labels."""
    found = dict(OF_PROMETHEUS)
    gateway = GatewayMetrics()
    for collector in vars(gateway).values():
        if hasattr(collector, "_labelnames"):
            for suffix in SUFFIXES[collector._type]:
                labels = {*collector._labelnames, *(["le"] if suffix == "_bucket" else [])}
                found[f"{collector._name}{suffix}"] = labels
    monitor = MonitorMetrics(model="m")
    monitor.judged(verdict())
    families: list[Metric] = list(monitor.collect())
    found |= {
        sample.name: set(sample.labels) for family in families for sample in family.samples
    }
    content = yaml.safe_load((ROOT / "serve" / "metrics.yaml").read_text())
    # Those of the machine are switched off in TorchServe's configuration.
    for source in (content["ts_metrics"], content["model_metrics"]):
        for kind, metrics in source.items():
            for metric in metrics:
                for suffix in SUFFIXES[kind] if kind == "histogram" else ("",):
                    labels = {*metric["dimensions"], "Hostname"}
                    labels |= {"le"} if suffix == "_bucket" else set()
                    found[f"{metric['name']}{suffix}"] = (
                        found.get(f"{metric['name']}{suffix}", set()) | labels
                    )
    return {name: labels for name, labels in found.items() if "Utilization" not in name}


def selected(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression names, with the labels by which it selects."""
    text = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", expression)
    text = re.sub(r"\[[^]]*\]", "", text)
    for found in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?", _without_numbers(text)):
        name, rest = found[1], found[2] or ""
        if rest != "(" and name not in _WORDS:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub('"[^"]*"', "", rest)))


def _without_numbers(text: str) -> str:
    return re.sub(r"(?<![\w:])\d[\w.]*", "", text)


def grouped(expression: str) -> set[str]:
    """The labels by which an expression groups."""
    lists = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for found in lists for label in found.split(",")}


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def asked(path: Path) -> list[str]:
    """Every expression of a dashboard."""
    found = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(
                node[key] for key in ("expr", "query") if isinstance(node.get(key), str)
            )
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                walk(item)

    walk(json.loads(path.read_text()))
    return [
        re.sub(r"^label_values\((.*), (\w+)\)$", r"sum by (\2) (\1)", text) for text in found
    ]


EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in rules()),
    *((path.stem, text) for path in DASHBOARDS for text in asked(path)),
]


def faults(expression: str) -> list[str]:
    there, wrong = exported(), []
    known = set(OF_TARGETS)
    for name, labels in selected(expression):
        if name not in there:
            wrong.append(f"{name} is exported by nobody")
            continue
        wrong += [f"{name} has no label {label}" for label in labels - there[name] - OF_TARGETS]
        known |= there[name]
    return wrong + [f"there is no label {label}" for label in grouped(expression) - known]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_what_is_asked_for_is_exported(where: str, expression: str) -> None:
    assert list(selected(expression)), where
    assert faults(expression) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(fakenews_request_total[5m])", "fakenews_request_total is exported by nobody"),
        ("fakenews_requests_total{code='200'}", "fakenews_requests_total has no label code"),
        ("sum by (stat) (fakenews_requests_total)", "there is no label stat"),
        ("1e3 * fakenews_ready > 5 and upp", "upp is exported by nobody"),
        ("max(CPUUtilization)", "CPUUtilization is exported by nobody"),
    ],
)
def test_what_is_not_exported_is_noticed(expression: str, fault: str) -> None:
    assert faults(expression) == [fault]


def test_every_metric_of_the_monitor_is_looked_at_by_somebody() -> None:
    looked_at = {name for _, text in EXPRESSIONS for name, _ in selected(text)}
    of_monitor = {name for name in exported() if name.startswith("fakenews_monitor_")}
    assert len(of_monitor) == 10
    assert of_monitor <= looked_at


def test_every_rule_says_how_urgent_it_is_and_is_tried() -> None:
    tried = yaml.safe_load((PROMETHEUS / "rules" / "fakenews_test.yaml").read_text())
    cases = [case for test in tried["tests"] for case in test["alert_rule_test"]]
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) == 16
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["labels"]["part"] in {"service", "model"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        expected = {
            bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]
        }
        assert expected == {True, False}, f"{rule['alert']} is not tried both ways"


def test_who_is_told_follows_from_the_rules() -> None:
    content = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())
    names = {rule["alert"] for rule in rules()}
    severities = {rule["labels"]["severity"] for rule in rules()}
    text = json.dumps(content["inhibit_rules"])
    told = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", text))
    assert told
    assert told <= names
    receivers = {receiver["name"] for receiver in content["receivers"]}
    routes = content["route"]["routes"]
    assert {content["route"]["receiver"], *(route["receiver"] for route in routes)} == receivers
    for route in routes:
        (matcher,) = route["matchers"]
        assert matcher.removeprefix('severity="').removesuffix('"') in severities
    for receiver in content["receivers"]:
        for kind, configs in receiver.items():
            if kind != "name":
                assert all(config["send_resolved"] for config in configs)


def test_secrets_of_alertmanager_are_in_files() -> None:
    content = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())
    text = json.dumps(content)
    assert not re.search(r'"(url|\w*password|credentials|\w*token)":', text)
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    given = set(compose["services"]["alertmanager"]["secrets"])
    assert {Path(name).name for name in re.findall(r"/run/secrets/\w+", text)} == given


def test_prometheus_scrapes_services_of_the_stack_at_ports_they_have() -> None:
    content = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    jobs = {}
    for job in content["scrape_configs"]:
        for group in job["static_configs"]:
            for target in group["targets"]:
                host, _, port = target.partition(":")
                assert host in compose
                jobs[job["job_name"]] = port
    serve = yaml.safe_load((ROOT / "conf" / "serve" / "local.yaml").read_text())
    assert jobs == {
        "gateway": str(serve["gateway"]["port"]),
        "torchserve": str(serve["torchserve"]["metrics_port"]),
        "monitor": "9105",
        "alertmanager": "9093",
    }
    named = re.findall(r'job="(\w+)"', RULES.read_text())
    assert set(named) <= jobs.keys()
    assert (PROMETHEUS / content["rule_files"][0]) == RULES


def commands() -> dict[str, list[str]]:
    """What starts the monitor: the image by itself, the stack on one machine, Kubernetes."""
    dockerfile = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    (command,) = re.findall(r"^CMD (\[.*scripts/monitor\.py.*\])$", dockerfile, re.MULTILINE)
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    overlay = ROOT / "deploy" / "kubernetes" / "overlays" / "monitor" / "monitor.yaml"
    (job,) = [
        found for found in yaml.safe_load_all(overlay.read_text()) if found["kind"] == "CronJob"
    ]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return {
        "image": json.loads(command),
        "stack": [
            word.replace("${BUNDLE:-", "").replace("}", "")
            for word in compose["monitor"]["command"]
        ],
        "cluster": [*container["command"], *container["args"]],
    }


@pytest.mark.parametrize("where", ["image", "stack", "cluster"])
def test_options_of_the_monitor_exist(where: str) -> None:
    program, script, *options = commands()[where]
    assert (program, script) == ("python", "scripts/monitor.py")
    assert (ROOT / script).is_file()
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose_config("monitor", overrides=options)
    if where == "cluster":
        # A run of its own each time, which tells people itself.
        assert cfg.schedule is None
        assert list(cfg.alerts) == ["webhook"]
        assert (cfg.log, cfg.out) == ("/shared/serving/*/predictions/*/*", "/shared/monitoring")
    else:
        # Prometheus, which is elsewhere, reads it; Alertmanager tells people.
        assert (cfg.schedule, cfg.metrics_host, cfg.metrics_port) == ("15m", "0.0.0.0", 9105)  # noqa: S104 of a container
        assert not cfg.alerts


def test_dashboards_are_what_grafana_reads() -> None:
    sources = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    (uid,) = {source["uid"] for source in sources}
    assert [path.stem for path in DASHBOARDS] == ["model", "service"]
    for path in DASHBOARDS:
        content = json.loads(path.read_text())
        assert content["uid"] == f"fakenews-{path.stem}"
        panels = content["panels"]
        identifiers = [panel["id"] for panel in panels]
        assert len(identifiers) == len(set(identifiers))
        places: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & places, panel["title"]
            places |= cells
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == uid
                assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
        variables = {variable["name"] for variable in content["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", json.dumps(panels)))
        assert used - {"__rate_interval"} == variables


def test_states_look_the_same_in_dashboards_and_metrics() -> None:
    from fakenews.monitoring.metrics import LEVELS

    (mappings,) = {
        json.dumps(panel["fieldConfig"]["defaults"]["mappings"])
        for panel in json.loads(DASHBOARDS[0].read_text())["panels"]
        if panel["type"] == "state-timeline"
    }
    shown = {
        int(key): option["text"] for key, option in json.loads(mappings)[0]["options"].items()
    }
    words = {State.UNKNOWN: "not judged"}
    assert shown == {level: words.get(state, state.value) for state, level in LEVELS.items()}
