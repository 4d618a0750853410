# One image for every service and the command line: `docker run tickpipe producer`, `… stream_app`, `… sink`,
# `… dashboard`, `… archive`, `… tickpipe status`. Pin the base by digest with --build-arg PYTHON_DIGEST=sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG PYTHON_DIGEST=

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS base

FROM base AS builder
ARG UV_VERSION=0.13.9
# Bytecode is compiled here because the final root file system is read-only. The certificates are those of the base
# image, so that a base of your own can bring a company's authority.
ENV PIP_CACHE_DIR=/cache/pip \
    UV_CACHE_DIR=/cache/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NATIVE_TLS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/tickpipe \
    UV_PYTHON=/usr/local/bin/python \
    UV_PYTHON_DOWNLOADS=never
RUN --mount=type=cache,target=/cache \
    python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
# The dependencies have a layer of their own, which a change of the project's code does not touch.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/cache \
    /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --extra services --extra sql
COPY . .
RUN --mount=type=cache,target=/cache \
    /opt/uv/bin/uv sync --frozen --no-dev --no-editable --extra services --extra sql
# Of pyarrow a third is for what nothing here does: Flight, its own tests, and building against it; of numpy and pysimdjson
# a third is tests and sources.
RUN packages="$(/opt/tickpipe/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && pyarrow="$packages/pyarrow" \
    && rm -rf "$pyarrow/tests" "$pyarrow/include" "$pyarrow/src" "$pyarrow"/*flight* "$pyarrow/libarrow_python.so" \
        "$pyarrow"/libarrow_python*.so.*.*.* "$pyarrow"/*.pyx "$pyarrow"/*.pxi "$pyarrow"/*.pxd \
    && find "$packages/numpy" -depth -type d -name tests -exec rm -rf {} + \
    && rm -f "$packages/simdjson"/*.cpp "$packages/simdjson"/*.h "$packages/simdjson"/*.pyx "$packages/simdjson"/*.pxd \
    && /opt/tickpipe/bin/python -I -c "import pyarrow.compute, pyarrow.fs, pyarrow.ipc, pyarrow.parquet, numpy, simdjson"

FROM base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tickpipe" \
    org.opencontainers.image.description="MetaTrader 5 ticks in, exact one-minute candles out." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# HOME is the only place that a library might write to; with a read-only root /tmp is a tmpfs.
ENV PATH=/opt/tickpipe/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TICKPIPE_LOG_FORMAT=json \
    TICKPIPE_PRODUCER_HOST=0.0.0.0 \
    TICKPIPE_STREAM_HOST=0.0.0.0 \
    TICKPIPE_SINK_HOST=0.0.0.0 \
    TICKPIPE_DASHBOARD_HOST=0.0.0.0 \
    TICKPIPE_ARCHIVE_HOST=0.0.0.0
RUN groupadd --gid 10001 tickpipe \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tickpipe \
    && install -d -o tickpipe -g tickpipe -m 700 /keys /known /demo /archive
COPY --from=builder /opt/tickpipe /opt/tickpipe
COPY compose/healthcheck.py runtime/services.py /usr/local/lib/tickpipe/
WORKDIR /
USER 10001:10001
EXPOSE 18001 18002 18003 18004 18080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-I", "-S", "/usr/local/lib/tickpipe/healthcheck.py"]
ENTRYPOINT ["python", "-m"]
CMD ["tickpipe", "--help"]
