"""Images, compose file and workflows, judged by the programs that judge such files."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakenews.monitoring import channels

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
COMPOSE = ROOT / "deploy" / "compose.yaml"
SCRIPTS = [
    ROOT / ".ci" / "run",
    ROOT / ".ci" / "image",
    ROOT / "deploy" / "install-packages",
    ROOT / "deploy" / "with-secrets",
    ROOT / "scripts" / "install.sh",
    ROOT / "scripts" / "lock.sh",
]

# actionlint asks shellcheck about the commands of a workflow if it finds it there.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    program = shutil.which(str(command[0]), path=ENVIRONMENT["PATH"])
    assert program, f"{command[0]} is not installed: it is one of the extra dev"
    return subprocess.run(
        [program, *map(str, command[1:])],
        capture_output=True,
        text=True,
        check=False,
        **{"env": ENVIRONMENT, "cwd": ROOT} | options,
    )


# Dockerfile


def test_hadolint_has_nothing_to_say() -> None:
    done = run("hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_refuses_a_bad_dockerfile(tmp_path: Path) -> None:
    bad = (ROOT / "Dockerfile").read_text().replace("WORKDIR /app", "WORKDIR app")
    (tmp_path / "Dockerfile").write_text(bad + "RUN sudo apt-get install gcc\n")
    done = run("hadolint", tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert {"DL3000", "DL3004"} <= set(re.findall(r"DL\d+", done.stdout))


def stages() -> dict[str, list[str]]:
    """Instructions by stage, each on one line."""
    found: dict[str, list[str]] = {}
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    name = ""
    for line in text.splitlines():
        if start := re.fullmatch(r"FROM (\S+)(?: AS (\S+))?", line):
            name = start[2] or "(last)"
            found[name] = []
        if name and line and not line.startswith("#"):
            found[name].append(line)
    return found


def test_what_ships_neither_builds_nor_runs_as_root() -> None:
    built = stages()
    assert "USER 10001:10001" in built["runtime"]
    assert built["java-runtime"][0] == "FROM runtime AS java-runtime"
    assert built["java-runtime"][-1] == "USER 10001:10001"
    for target in ("train", "predict", "serve", "web", "monitor", "mlflow"):
        base = "java-runtime" if target == "serve" else "runtime"
        assert built[target][0] == f"FROM {base} AS {target}"
        words = {line.split()[0] for line in built[target]}
        assert words.isdisjoint({"RUN", "USER", "ADD", "ENTRYPOINT"}), "COPY alone adds to it"
    assert built["(last)"] == ["FROM train"]


def test_commands_are_no_shell_which_would_keep_signals_from_them() -> None:
    for lines in stages().values():
        for line in lines:
            if line.startswith(("CMD", "ENTRYPOINT")):
                assert json.loads(line.partition(" ")[2])


def test_no_index_and_no_password_stands_in_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "://" not in re.sub(r"http://127\.0\.0\.1|sqlite:///", "", text)
    assert re.findall(r"ARG (PIP_\w+)(=?)", text) == [
        ("PIP_INDEX_URL", ""),
        ("PIP_EXTRA_INDEX_URL", ""),
    ]


# What is sent to a build


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that fits decides."""
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    lets = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        patterns = (
            [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        )
        if any(
            fnmatch(candidate, one) and candidate.count("/") >= one.count("/")
            for candidate, one in product(above, patterns)
        ):
            lets = line.startswith("!")
    return lets


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".venv/bin/python",
        "deploy/secrets/postgres_password",
        "deploy/compose.yaml",
        "mlflow.db",
        "optuna.db",
        "runs/sample-fusion/2026/bundle/weights.safetensors",
        "sweeps/study/report.html",
        "conf/experiment/study_best.yaml",
        "src/fakenews/__pycache__/cli.cpython-311.pyc",
        "src/fakenews.egg-info/PKG-INFO",
        "tests/conftest.py",
        "news.csv",
    ],
)
def test_not_sent_to_a_build(path: str) -> None:
    assert not sent(path)


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "requirements.lock", "train.py", "LICENSE", "conf/train.yaml"]
)
def test_sent_to_a_build(path: str) -> None:
    assert (ROOT / path).exists()
    assert sent(path)


def test_all_sources_and_commands_are_sent_to_a_build() -> None:
    files = run("git", "ls-files", "src", "scripts/*.py", "conf").stdout.splitlines()
    assert len(files) > 100
    assert [path for path in files if not sent(path)] == []
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    for source in " ".join(copied).split():
        assert sent(source if (ROOT / source).is_file() else f"{source}/x.py")


# Shell scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    done = run("shellcheck", script)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(script, os.X_OK)


def test_a_secret_reaches_a_command_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("it's $1 `x`\n")
    show = ["sh", "-c", 'printf %s "$PGPASSWORD"']
    script = ROOT / "deploy" / "with-secrets"
    given = ENVIRONMENT | {"PGPASSWORD_FILE": str(tmp_path / "password")}
    assert run(script, *show, env=given).stdout == "it's $1 `x`"
    plain = ENVIRONMENT | {"PGPASSWORD": "other"}
    assert run(script, *show, env=plain).stdout == "other"
    missing = run(script, *show, env=ENVIRONMENT | {"PGPASSWORD_FILE": str(tmp_path / "none")})
    assert (missing.returncode != 0, missing.stdout) == (True, "")


def test_every_secret_of_alerts_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    for name in (channels.WEBHOOK_URL, channels.WEBHOOK_TOKEN, channels.SMTP_PASSWORD):
        given = ENVIRONMENT | {f"{name}_FILE": str(tmp_path / "secret")}
        show = ["sh", "-c", f'printf %s "${name}"']
        assert run(ROOT / "deploy" / "with-secrets", *show, env=given).stdout == "s3cret"


# Compose


def composed(path: Path = COMPOSE) -> subprocess.CompletedProcess[str]:
    profiles = [f"--profile={name}" for name in ("train", "sweep", "serve", "monitoring")]
    return run(
        "docker-compose",
        "--file",
        path,
        *profiles,
        "config",
        "--format",
        "json",
        cwd=path.parent,
    )


def services() -> dict[str, Any]:
    done = composed()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_reads_its_file_without_a_warning() -> None:
    assert composed().stderr == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("read_only: true", "read_onyl: true"),
        ("condition: service_healthy", "condition: service_well"),
        ('"127.0.0.1:5000:5000"', '"127.0.0.1:5000:http"'),
        ("networks: [store]", "networks: [shop]"),
    ],
)
def test_compose_refuses_a_bad_file(tmp_path: Path, old: str, new: str) -> None:
    text = COMPOSE.read_text()
    assert old in text
    (tmp_path / "compose.yaml").write_text(text.replace(old, new))
    assert composed(tmp_path / "compose.yaml").returncode != 0


def faults(found: dict[str, Any]) -> set[str]:
    """What makes a stack less safe than it could be."""
    wrong = set()
    for name, service in found.items():
        if not service.get("read_only"):
            wrong.add(f"{name}: a root that can be written")
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
            wrong.add(f"{name}: capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            wrong.add(f"{name}: may gain privileges")
        if service.get("privileged") or "host" in {
            service.get(key) for key in ("network_mode", "pid", "ipc")
        }:
            wrong.add(f"{name}: shares what is the host's")
        if service.get("user", "10001").split(":")[0] in {"0", "root"}:
            wrong.add(f"{name}: root")
        wrong |= {
            f"{name}: port {port['published']} of other machines"
            for port in service.get("ports", [])
            if port.get("host_ip") != "127.0.0.1"
        }
        for key, value in (service.get("environment") or {}).items():
            if "PASSWORD" in key and not key.endswith("_FILE"):
                wrong.add(f"{name}: {key} in the environment")
            if re.search(r"://[^/@]*:[^/@]*@", str(value)):
                wrong.add(f"{name}: a password in {key}")
        wrong |= {
            f"{name}: does not wait for {other} to be healthy"
            for other, how in (service.get("depends_on") or {}).items()
            if how["condition"] != "service_healthy"
        }
    return wrong


def test_the_stack_is_hardened() -> None:
    assert faults(services()) == set()


def test_a_stack_that_is_not_hardened_is_noticed() -> None:
    soft = copy.deepcopy(services())
    soft["mlflow"]["ports"][0].pop("host_ip")
    soft["mlflow"]["environment"]["X"] = "postgresql://a:b@c/d"
    soft["train"].pop("read_only")
    soft["train"]["environment"]["PGPASSWORD"] = "x"
    soft["sweep"]["cap_add"] = ["SYS_ADMIN"]
    soft["sweep"]["user"] = "root"
    soft["postgres"]["security_opt"] = []
    soft["postgres"]["network_mode"] = "host"
    soft["mlflow"]["depends_on"]["postgres"]["condition"] = "service_started"
    assert len(faults(soft)) == 9


def test_servers_are_restarted_and_checked() -> None:
    found = services()
    jobs, images = {"train", "sweep"}, {"mlflow", "serve", "web", "monitor"}
    others = {"postgres", "prometheus", "alertmanager", "grafana"}
    assert jobs | images | others == set(found)
    for name in images:
        assert any(line.startswith("HEALTHCHECK") for line in stages()[name])
    for name in others:
        assert found[name]["healthcheck"]["test"]
        # Of others, so that what is started is what was tried.
        assert re.fullmatch(r"[\w/]+:v?\d[\w.-]*", found[name]["image"])
    assert "pg_isready" in found["postgres"]["healthcheck"]["test"]
    restarted = {name for name, service in found.items() if service.get("restart")}
    assert restarted == images | others, "a training that ended is not begun again"


def test_the_stack_starts_images_of_this_repository_on_commands_that_exist() -> None:
    found = services()
    for name in ("mlflow", "train", "sweep", "serve", "web", "monitor"):
        assert found[name]["build"]["target"] in stages()
    for name in ("train", "sweep"):
        config = run(
            sys.executable,
            "train.py",
            *[word for word in found[name]["command"][2:] if word != "-m"],
            "--cfg=job",
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")},
        )
        assert config.returncode == 0, config.stderr


def test_secrets_of_the_stack_are_in_files_that_git_ignores() -> None:
    secrets = yaml.safe_load(COMPOSE.read_text())["secrets"]
    for secret in secrets.values():
        path = (COMPOSE.parent / secret["file"]).resolve()
        assert run("git", "check-ignore", path).returncode == 0
        assert run("git", "ls-files", path).stdout == ""


# Workflows


def test_actionlint_has_nothing_to_say() -> None:
    assert WORKFLOWS
    done = run("actionlint", *WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("needs: image", "needs: images", "images"),
        ("steps.push.outputs.digest", "steps.puhs.outputs.digest", "puhs"),
        ("id-token: write", "id-tokens: write", "id-tokens"),
        ('cat "$GITHUB_WORKSPACE/$digest"', "cat $GITHUB_WORKSPACE/$digest", "SC2086"),
    ],
)
def test_actionlint_refuses_a_broken_workflow(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    assert old in text
    (tmp_path / "release.yaml").write_text(text.replace(old, new))
    done = run("actionlint", tmp_path / "release.yaml")
    assert done.returncode == 1
    assert complaint in done.stdout


def test_zizmor_finds_no_way_to_misuse_a_workflow() -> None:
    done = run("zizmor", "--offline", "--no-progress", "--strict-collection", ".github")
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_actions_that_can_be_moved_and_text_that_becomes_code(
    tmp_path: Path,
) -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yaml").read_text()
    text = re.sub(r"@[0-9a-f]{40} # (v\d)\S*", r"@\1", text)
    text = text.replace("$TARGET", "${{ github.head_ref }}")
    (tmp_path / "ci.yaml").write_text(text)
    done = run("zizmor", "--offline", "--no-progress", tmp_path / "ci.yaml")
    assert done.returncode != 0
    assert {"unpinned-uses", "template-injection"} <= set(
        re.findall(r"\[([a-z-]+)\]", done.stdout)
    )


def commands() -> list[str]:
    """What the workflows run, with the values of their matrices."""
    found = []
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            rows = matrix.get("include") or [{}]
            for step, row in product(job["steps"], rows):
                if "run" in step:
                    values = row | {"command": row.get("command", "")}
                    found.append(
                        re.sub(
                            r"\$\{\{ matrix\.(\w+) \}\}",
                            lambda match, values=values: str(values[match[1]]),
                            step["run"],
                        )
                    )
    return found


def test_workflows_call_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(commands())))
    assert called == {"check", "test", "test-slow", "image"}
    assert called <= targets


def test_every_job_ends_in_time_and_asks_for_its_own_rights() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}
        assert workflow["concurrency"]
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"]
            assert job["permissions"]["contents"] == "read"


def test_no_workflow_keeps_a_key() -> None:
    for path in WORKFLOWS:
        text = path.read_text()
        assert "secrets." not in text
        assert "access-key" not in text


def test_nothing_is_deployed_unseen() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())
    names = [step.get("name") for step in workflow["jobs"]["image"]["steps"]]
    assert names.index("Scan") < names.index("Push")
    deploy = workflow["jobs"]["deploy"]
    assert (deploy["needs"], deploy["environment"]) == ("image", "production")
