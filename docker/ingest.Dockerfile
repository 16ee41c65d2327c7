# The ingest worker: reads images, cuts and embeds cells, and sends them to the service.
# Build from the root of the repository: docker build -f docker/ingest.Dockerfile -t hemaseek-ingest .

FROM ghcr.io/astral-sh/uv:0.13 AS uv

FROM python:3.12-slim-bookworm AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# What changes seldom comes first: the dependencies have a layer of their own.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-project --extra ingest
COPY encoder ./encoder
COPY search ./search
COPY ingest ./ingest
COPY train ./train
COPY ui ./ui
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-editable --extra ingest

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /home/hemaseek hemaseek \
    && mkdir /ledger /weights && chown hemaseek /ledger /weights
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    HEMASEEK_LIBRARY=/ledger \
    HEMASEEK_WEIGHTS=/weights
USER 10001
WORKDIR /home/hemaseek
VOLUME ["/ledger", "/weights"]
# It runs to its end and exits with the status of the ingest: there is nothing to ask of it.
HEALTHCHECK NONE
ENTRYPOINT ["hemaseek", "ingest"]
CMD ["/images"]
