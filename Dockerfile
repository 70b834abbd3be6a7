# The Grand Challenge algorithm container. Build with ./build.sh, prove with ./test.sh.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

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

# The large layer, and the one that seldom changes: it comes before the code.
COPY requirements.txt /opt/balaitous/
RUN python -m pip install --no-cache-dir --requirement /opt/balaitous/requirements.txt

COPY process.py /opt/balaitous/
COPY balaitous /opt/balaitous/balaitous
# Weights: every bundle that lies in resources/ is baked in; a model tarball on /opt/ml/model comes before them.
COPY resources /opt/balaitous/resources
RUN find /opt/balaitous ! -perm -a=r -exec chmod a+rX {} + && python -m compileall -q /opt/balaitous
ENV PYTHONDONTWRITEBYTECODE=1

# exec: one job, then the end. invoke: an HTTP server for many. The layers above are the same, and stored once.
ARG API_METHOD=exec
COPY requirements-invoke.txt /opt/balaitous/
RUN if [ "$API_METHOD" = invoke ]; then \
      python -m pip install --no-cache-dir --requirement /opt/balaitous/requirements-invoke.txt; \
    fi
ENV API_METHOD=${API_METHOD}
LABEL org.grand-challenge.api-method="${API_METHOD}"

USER algorithm
WORKDIR /tmp
ENTRYPOINT ["python", "/opt/balaitous/process.py"]
