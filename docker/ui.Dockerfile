# The page: it asks the service, and has neither torch nor a store.
# Build from the root of the repository: docker build -f docker/ui.Dockerfile -t hemaseek-ui .

FROM ghcr.io/astral-sh/uv:0.13 AS uv

FROM python:3.12-slim-bookworm AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# What changes seldom comes first: the dependencies have a layer of their own.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-project --extra ui
COPY encoder ./encoder
COPY search ./search
COPY ingest ./ingest
COPY train ./train
COPY ui ./ui
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-editable --extra ui

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /home/hemaseek hemaseek
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    HEMASEEK_PAGE_PORT=8501
USER 10001
WORKDIR /home/hemaseek
EXPOSE 8501
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["hemaseek", "page", "--address", "0.0.0.0"]
