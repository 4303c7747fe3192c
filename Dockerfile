# Images of this project, all on one base: `train`, `predict`, `serve`, `web`, `monitor`,
# `retrain` and `mlflow`.
#
#   docker build --target train --tag fakenews-train .
#
# deploy/README.md says how to choose a package index, and a CPU build of torch.

# A tag, so that it can be read here; a release pins its digest (.github/workflows).
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS builder
# pip reads these; without them, its own default. A URL with a password would stay in the
# build's history: give a pip.conf as the secret `pip` instead.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY deploy/install-packages /usr/local/bin/
COPY pyproject.toml requirements.lock ./
# Enough of a package to be installed: changed sources leave the layers below as they are.
RUN mkdir -p src/fakenews && touch src/fakenews/__init__.py README.md LICENSE


FROM builder AS train-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages --editable ".[train,postgres,s3,etcd]"


FROM builder AS predict-packages
# Hydra reads the command's options and rich prints its tables; what trains is left out, and
# with it what the sweeper, which Hydra would load as a plugin, builds on.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages --editable . hydra-core omegaconf rich \
    && rm /opt/venv/lib/python3.*/site-packages/fakenews-*.dist-info/entry_points.txt


FROM builder AS serve-packages
# As above: Hydra reads the command's options, and nothing trains.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages --editable ".[serve,web]" \
    && rm /opt/venv/lib/python3.*/site-packages/fakenews-*.dist-info/entry_points.txt


FROM builder AS web-packages
# No model runs there, so the project is not installed: that would bring torch along.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['web'], sep='\n')" \
        > web.txt \
    && install-packages --requirement web.txt


FROM builder AS monitor-packages
# As for `serve`. With the core, as a bundle says what is usual.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages --editable ".[monitor,s3]" \
    && rm /opt/venv/lib/python3.*/site-packages/fakenews-*.dist-info/entry_points.txt


FROM builder AS retrain-packages
# All that a cycle calls: training, the monitor, archives.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages --editable ".[train,serve,web,monitor,retrain,postgres,s3]"


FROM builder AS mlflow-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    install-packages mlflow "psycopg[binary]" boto3


FROM ${BASE} AS source
WORKDIR /app
COPY LICENSE train.py ./
COPY scripts scripts
COPY serve serve
COPY conf conf
COPY src src
# A container may not write bytecode, and without it every start compiles. The hash is not
# looked at: nothing here changes.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .


FROM ${BASE} AS runtime
# As process 1 Python would ignore SIGTERM until its handler stands; tini passes it on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 fakenews \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin fakenews \
    && install --directory --owner=10001 --group=10001 /data
COPY deploy/with-secrets /usr/local/bin/
# All that is written goes to /data, a volume, and /tmp: the root may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GIT_PYTHON_REFRESH=quiet \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    FAKENEWS_ROOT=/data \
    FAKENEWS_CACHE=/data/cache
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["tini", "--", "with-secrets"]
ARG VERSION=0.1.0
ARG COMMIT
LABEL org.opencontainers.image.title=fakenews \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.revision=${COMMIT}


FROM runtime AS train
COPY --from=train-packages /opt/venv /opt/venv
COPY --from=source /app /app
# A run records its commit, which it cannot ask of git here.
ARG COMMIT
ENV FAKENEWS_COMMIT=${COMMIT}
CMD ["python", "train.py"]


FROM runtime AS predict
COPY --from=predict-packages /opt/venv /opt/venv
COPY --from=source /app /app
CMD ["python", "scripts/predict.py", "--help"]


FROM runtime AS java-runtime
USER 0:0
# Java's package links manuals into a folder that slim images do not have.
# hadolint ignore=DL3008
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
USER 10001:10001


# TorchServe, which listens to its own pod or network namespace alone: `web` runs beside it.
FROM java-runtime AS serve
COPY --from=serve-packages /opt/venv /opt/venv
COPY --from=source /app /app
# Of its ports this alone asks for no key.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8082/metrics', timeout=4)"]
CMD ["python", "scripts/serve.py", "serve=container", "start=[torchserve]"]


# The gateway and its page.
FROM runtime AS web
COPY --from=web-packages /opt/venv /opt/venv
COPY --from=source /app /app
ENV PYTHONPATH=/app/src
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["python", "scripts/serve.py", "serve=container", "start=[gateway]"]


# Judges the prediction log, and tells what it has found.
FROM runtime AS monitor
COPY --from=monitor-packages /opt/venv /opt/venv
COPY --from=source /app /app
EXPOSE 9105
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=4 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9105/metrics', timeout=8)"]
CMD ["python", "scripts/monitor.py", "bundle=latest", "schedule=15m", "metrics_host=0.0.0.0"]


# A step of a cycle, as deploy/airflow starts them in pods.
FROM runtime AS retrain
COPY --from=retrain-packages /opt/venv /opt/venv
COPY --from=source /app /app
ARG COMMIT
ENV FAKENEWS_COMMIT=${COMMIT}
CMD ["python", "scripts/retrain.py", "--help"]


FROM runtime AS mlflow
COPY --from=mlflow-packages /opt/venv /opt/venv
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENV MLFLOW_BACKEND_STORE_URI=sqlite:////data/mlflow.db
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "2", \
    "--artifacts-destination", "/data/artifacts"]


# What is built when no target is named.
FROM train
