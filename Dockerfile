# The Grand Challenge algorithm container. Build with ./build.sh, prove with ./test.sh.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS packages

# Any user may run this image, with a read-only root and no home: what libraries want to write goes to /tmp.
ENV PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN groupadd --gid 1000 algorithm \
 && useradd --uid 1000 --gid algorithm --no-create-home --shell /usr/sbin/nologin algorithm \
 && install --directory --mode 1777 /input /output

# The large layer, and the one that seldom changes: it comes before the code. Only files whose hashes are in the lock get
# in, and none is built here. Triton (0.9 GB) is the compiler behind torch.compile, which no prediction uses.
COPY requirements.lock /opt/balaitous/
RUN python -m pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
      --requirement /opt/balaitous/requirements.lock \
 && python -m pip uninstall --yes triton

# exec: one job, then the end. invoke: an HTTP server for many. The layers above are the same, and stored once.
ARG API_METHOD=exec
COPY requirements-invoke.lock /opt/balaitous/
RUN if [ "$API_METHOD" = invoke ]; then \
      python -m pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
        --requirement /opt/balaitous/requirements-invoke.lock; \
    fi

# What is in the image, as CycloneDX; the tool that writes it stays behind.
FROM packages AS sbom
COPY tools/requirements.lock /tools/
RUN python -m venv /tools/venv \
 && /tools/venv/bin/python -m pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
      --requirement /tools/requirements.lock \
 && /tools/venv/bin/cyclonedx-py environment --output-file /tools/sbom.cdx.json "$(command -v python)"

FROM packages
COPY --from=sbom /tools/sbom.cdx.json /opt/balaitous/
COPY process.py /opt/balaitous/
COPY balaitous /opt/balaitous/balaitous
# Weights: of resources/, the severity model's bundles (.dockerignore); a model tarball on /opt/ml/model comes before them.
COPY resources /opt/balaitous/resources
RUN find /opt/balaitous ! -perm -a=r -exec chmod a+rX {} + && python -m compileall -q /opt/balaitous
ENV PYTHONDONTWRITEBYTECODE=1

ARG API_METHOD=exec
ENV API_METHOD=${API_METHOD}
LABEL org.grand-challenge.api-method="${API_METHOD}"

USER algorithm
WORKDIR /tmp
ENTRYPOINT ["python", "/opt/balaitous/process.py"]
