# The API, the scheduler, the migrations and the command line: everything that runs without torch. Workers: see
# Dockerfile.gpu.
FROM python:3.11.15-slim-bookworm AS builder

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# What the last stage takes, without pip: this one's pip installs into it. setuptools makes the project's wheel; as the
# lock has it, since whatever pip fetched for that by itself would be another one each time.
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/greentune \
    && pip --python /opt/greentune install --constraint requirements.lock setuptools

# The dependencies alone, so that a change of the code leaves this layer as it is. pyproject.toml says which, the lock
# their versions. The charts' package is taken for its JavaScript: what it asks for is a notebook's.
COPY pyproject.toml README.md LICENSE ./
RUN pip --python /opt/greentune install --constraint requirements.lock --no-build-isolation . \
    && pip --python /opt/greentune install --constraint requirements.lock --no-deps uplot-python

COPY greencore greencore
COPY greentune greentune
COPY runtime runtime
COPY store store
COPY planning planning
COPY scheduler scheduler
COPY worker worker
COPY api api
COPY cli cli
COPY migrations migrations
RUN pip --python /opt/greentune install --no-build-isolation --no-deps --force-reinstall . \
    && pip --python /opt/greentune uninstall --yes setuptools


FROM python:3.11.15-slim-bookworm

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="GreenTune" \
      org.opencontainers.image.description="Carbon-aware fine-tuning of language models: API, scheduler, migrations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Nothing is installed here any more. The uid is fixed, since the files in the volume belong to it.
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && useradd --create-home --uid 1000 greentune \
    && install --directory --mode=0700 --owner=greentune --group=greentune /data
COPY --from=builder /opt/greentune /opt/greentune

USER 1000:1000
WORKDIR /app
ENV PATH=/opt/greentune/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GREENTUNE_DATA_DIR=/data \
    GREENTUNE_LOG_FORMAT=json \
    HF_HUB_OFFLINE=1
VOLUME /data
EXPOSE 8000
# The health checks are in docker-compose.yml: each process has its own. GREENTUNE_TRUSTED_PROXIES says whose headers are
# believed, instead of an option of uvicorn. h11 reads 64 KiB of headers at most, uvicorn's other parser any number.
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--http", "h11", "--no-proxy-headers", "--timeout-graceful-shutdown", "10"]
