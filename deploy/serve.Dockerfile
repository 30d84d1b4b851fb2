# The CPU server. Build from the repository root:
#   docker build -f deploy/serve.Dockerfile --build-arg BASE=python:3.11-slim-bookworm@sha256:... \
#       --build-arg TORCH_INDEX=URL -t eul-serve .
# BASE must carry a digest in anything that is released: a tag moves, a digest does not.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=torch==2.13.0+cpu
# The package index of torch's CPU builds, which torch's installation page names; there is no default.
ARG TORCH_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
RUN python -m pip install "uv>=0.9,<1" && python -m venv --without-pip /opt/eul

# The dependencies change seldom, so they are a layer of their own, below the source.
# torch comes first and alone: its index also holds old copies of other packages.
WORKDIR /src
COPY deploy/constraints-cpu.txt deploy/overrides.txt deploy/
RUN test -n "${TORCH_INDEX}" || { echo "give --build-arg TORCH_INDEX=URL, the index of torch's CPU builds" >&2; exit 2; }; \
    uv pip install --python /opt/eul --no-deps --index-url "${TORCH_INDEX}" "${TORCH}"
COPY pyproject.toml ./
RUN uv pip install --python /opt/eul --compile-bytecode \
        --constraints deploy/constraints-cpu.txt --overrides deploy/overrides.txt \
        --requirements pyproject.toml --extra cpu

COPY README.md LICENSE ./
COPY proto/ proto/
COPY eul_serve/ eul_serve/
COPY trainer/ trainer/
RUN uv build --wheel --out-dir /dist \
    && uv pip install --python /opt/eul --no-deps --compile-bytecode /dist/*.whl

FROM ${BASE}
# vLLM's CPU kernels link to libnuma; everything else they need is inside the wheels.
# The version is that of the base's digest, so it is not pinned a second time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 eul \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin eul \
    && install --directory --owner=10001 --group=10001 --mode=0700 /cache
COPY --from=build /opt/eul /opt/eul

# With a read-only root only /cache and /tmp are written: verified bundles and HOME in the first, sockets in the second.
# Nothing is ever fetched from a model hub, and nothing is reported to anyone.
# There is no compiler here, and some of vLLM's sampler would ask for one even in eager mode: torch runs it as it is.
ENV PATH=/opt/eul/bin:$PATH \
    HOME=/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 \
    TORCHDYNAMO_DISABLE=1
VOLUME ["/cache"]
USER 10001:10001
EXPOSE 8500 9500
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["eul", "health", "--live", "--timeout", "4"]
ENTRYPOINT ["eul", "serve"]
