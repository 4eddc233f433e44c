# syntax=docker/dockerfile:1
# The image of the job: the command line and the locked dependencies, without compiler and pip. `make
# image` builds it with docker or podman.
#
# The base tag can move. Pin a digest for reproducible builds:
#   make image BASE=docker.io/library/python:3.11-slim-bookworm@sha256:...
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
# Timestamp of all files, in seconds since 1970, so that the same inputs give the same bytes.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/job
COPY requirements.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/job/bin/python install --quiet --no-compile --no-deps --require-hashes \
      -r /build/requirements.lock
# Files that a run never opens, according to a trace: tests, headers, AWS services other than S3 and
# its logins, and networkx, which only Paddle's PIR imports. There is no -f, so that the build fails
# if a listed file no longer exists. paddle/libs contains the OpenVINO engine, which runs use.
WORKDIR /opt/job/lib/python3.11/site-packages
RUN rm -r paddle/include \
      matplotlib/mpl-data/sample_data numpy/_core/include networkx networkx-*.dist-info \
 && find botocore/data boto3/data -mindepth 1 -maxdepth 1 -type d \
      ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' \) -delete
# paddleslim imports pip for functions that the job does not use.
RUN mkdir pip && echo '"""Empty, because paddleslim imports pip, which this image does not contain."""' > pip/__init__.py
# Each stage is a process that imports Paddle, and bytecode saves seven seconds per import. Bytecode
# is keyed by source hash and unchecked, because timestamps are reset and nothing changes afterwards.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash . \
 && find /opt/job -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM dependencies AS package
ARG SOURCE_DATE_EPOCH=0
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY k8s k8s
COPY manifests manifests
COPY job job
RUN pip --python /opt/job/bin/python install --quiet --no-compile --no-deps --no-build-isolation \
      --prefix /package . \
 && python -m compileall -q --invalidation-mode unchecked-hash \
      -s /package -p /opt/job /package/lib/python3.11/site-packages \
 && find /package -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE} AS job
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini libgomp1 libjemalloc2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=dependencies /opt/job /opt/job
COPY --from=package /package /opt/job
# A folder mounted at /work hides these manifests.
COPY manifests /work/manifests
# OpenShift sets an arbitrary user with group 0, so the group gets the rights of the user.
RUN chown -R 1000:0 /work && chmod -R g=u /work
# HOME: caches of matplotlib and downloaded weights need a folder that is writable in a read-only
# container. JOB_SCRATCH: /tmp may be small, so work with S3 uses the volume. LD_PRELOAD: jemalloc
# speeds up small INT8 calls. Set it to an empty string for glibc's allocator. The report names the
# allocator.
ENV PATH=/opt/job/bin:$PATH \
    HOME=/tmp \
    JOB_SCRATCH=/work/.scratch \
    LD_PRELOAD=libjemalloc.so.2 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 1000:0
# tini reaps orphaned processes and forwards signals, so that the job exits with 128 + signal.
# Without tini, SIGTERM would not end commands that have no handler for it, because they are PID 1.
ENTRYPOINT ["tini", "--", "job"]
CMD ["--help"]

# The build fails if the libraries cannot run INT8. On a builder without AVX512_VNNI, only doctor's
# check of the CPU is ignored.
FROM job AS proof
COPY tests/container/prove.py /tmp/
RUN python /tmp/prove.py > /tmp/doctor.json

FROM job
# Result of `job doctor` on the builder.
COPY --from=proof /tmp/doctor.json /opt/job/share/doctor.json
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="job" \
      org.opencontainers.image.description="From a JSON manifest to a measured INT8 vision model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
