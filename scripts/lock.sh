#!/usr/bin/env bash
# Resolve every extra together (EXTRAS, of `make lock`) and write the exact versions to
# requirements.lock.
#
# Only names and versions are written: no index, no local path, and no build tag, so
# that the lock installs a CPU or a GPU build of torch as the index offers it.
set -euo pipefail
cd "$(dirname "$0")/.."
environment="$(mktemp -d)"
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3.11}" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet torch==2.13.0 ".[$EXTRAS]"
{
    echo "# Exact versions of every extra; written by \`make lock\`."
    "$environment/bin/python" -m pip list --format=freeze \
        --exclude fakenews --exclude pip --exclude setuptools |
        sed -E 's/\+[a-z0-9.]+$//' | sort --ignore-case
} > requirements.lock.new
mv requirements.lock.new requirements.lock
