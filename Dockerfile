# Two stages: the first builds a virtual environment from pinned hashes, the second carries nothing else.
FROM python:3.12-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/gateway
COPY requirements/runtime.txt requirements/build.txt ./requirements/
RUN /opt/gateway/bin/pip install --require-hashes -r requirements/runtime.txt \
    && python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md openapi.yaml ./
COPY gateway ./gateway
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/gateway/bin/pip install --no-deps dist/*.whl

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 GATEWAY_HTTP__HOST=0.0.0.0
USER 10001
EXPOSE 8080
# Liveness only: a gateway whose store is away must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('GATEWAY_HTTP__PORT', '8080') + '/livez', timeout=2)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
