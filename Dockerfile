# driftline on the CPU.
#     docker build -t driftline:0.1.0 .
# How it is run: README.md, "In a container".

FROM python:3.13-slim-trixie AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
COPY constraints.txt LICENSE README.md pyproject.toml ./
COPY kernels kernels
COPY runtime runtime
RUN python -m venv /opt/driftline \
    && /opt/driftline/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[cpu,grpc]' \
    && /opt/driftline/bin/pip uninstall --yes --disable-pip-version-check pip
# Kernels for every x86-64 of the last ten years (AVX2); on other machines, --build-arg CPU=generic.
ARG CPU=x86-64-v3
ENV NUMBA_CPU_NAME=$CPU NUMBA_CPU_FEATURES=
RUN /opt/driftline/bin/driftline compile

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="driftline" \
      org.opencontainers.image.description="Serves machine-learning models over HTTP and watches the data that flows through them" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ARG CPU=x86-64-v3
ENV PATH=/opt/driftline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CPU_NAME=$CPU \
    NUMBA_CPU_FEATURES= \
    ORT_DISABLE_TELEMETRY=1 \
    DRIFTLINE_HOST=0.0.0.0 \
    DRIFTLINE_CACHE=/tmp/driftline
COPY --from=build /opt/driftline /opt/driftline
# The registry is /srv/models unless --registry says another.
WORKDIR /srv
USER 65532:65532
EXPOSE 8080 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"DRIFTLINE_PORT\", 8080)}/v2/health/ready', timeout=4)"]
ENTRYPOINT ["driftline"]
CMD ["serve"]
