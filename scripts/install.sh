#!/usr/bin/env bash
# Install into an environment, which is made when there is none:
#
#     scripts/install.sh VENV ARGUMENTS_OF_UV_PIP_INSTALL
#
# PYTHON is the interpreter of a new one. uv takes a fraction of pip's time, but does not read
# pip's settings; so it is told what they say of where packages come from, unless variables of
# its own (UV_DEFAULT_INDEX and so on) say something else.
set -euo pipefail
venv="$1"
shift
python="$venv/bin/python"
# One that was interrupted while it was made is mended.
"$python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3.11}" -m venv "$venv"
[ -x "$venv/bin/uv" ] || "$python" -m pip install --quiet uv==0.13.9

read -r -d '' translate <<'PYTHON' || true
import ast, os, pathlib, sys

# Variables come before files; they win.
found = {}
for line in sorted(sys.stdin, key=lambda line: line.startswith(":env:")):
    name, _, value = line.partition("=")
    found[name.rpartition(".")[2]] = ast.literal_eval(value.strip()).split()

def there(place):
    return not place.startswith("file://") or pathlib.Path(place.removeprefix("file://")).exists()

meant = {
    "UV_DEFAULT_INDEX": " ".join(found.get("index-url", [])),
    "UV_INDEX": " ".join(filter(there, found.get("extra-index-url", []))),
    "UV_FIND_LINKS": ",".join(filter(there, found.get("find-links", []))),
    "UV_INSECURE_HOST": " ".join(found.get("trusted-host", [])),
    "SSL_CERT_FILE": " ".join(found.get("cert", [])),
}
# As pip chooses: the best of all, whichever index has it.
meant["UV_INDEX_STRATEGY"] = "unsafe-best-match" if meant["UV_INDEX"] else ""
for name, value in meant.items():
    if value and name not in os.environ:
        print(f"{name}={value}")
PYTHON
mapfile -t settings < <("$python" -m pip config list | "$python" -c "$translate")
# Exported: the arguments of a process are seen by all, and an address may have a password.
for setting in "${settings[@]}"; do export "${setting?}"; done
"$venv/bin/uv" pip install --quiet --python "$python" "$@"

# Compiled once, on all cores, and not by each of the processes that start first. What hardly
# anything imports is left to who does; what is no Python, as some templates, nobody minds.
rare='databricks|fontTools|kagglesdk|moto|mypyc?|networkx|onnx(runtime|script)?|plotly|setuptools'
rare="/(tests|cfnlint|dns|graphql|pytorch_lightning|sentence_transformers|$rare)/"
"$python" -m compileall -q -j 0 -x "$rare|/transformers/models/(?!auto|bert/)" "$venv/lib" \
    >/dev/null || true
