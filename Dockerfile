# syntax=docker/dockerfile:1
# The job as an image: the command line, the locked dependencies and what they need, no compiler,
# no pip of its own. Docker and podman build it: make image.
#
# The tag names a Python and a Debian; pin a digest for builds that must not move:
#   make image BASE=docker.io/library/python:3.11-slim-bookworm@sha256:...
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
# Seconds since 1970 that every file is dated with: the same inputs then give the same bytes.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/job
COPY requirements.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/job/bin/python install --quiet --no-compile --no-deps --require-hashes \
      -r /build/requirements.lock
# What a run never opens, found by tracing one: tests, headers, the plugin of the OpenVINO inside
# Paddle, services of AWS besides S3 and its logins, and networkx, which only Paddle's PIR asks for.
# Without -f: the build fails once a name here is no more.
WORKDIR /opt/job/lib/python3.11/site-packages
RUN rm -r paddle/include paddle/libs/libopenvino_intel_cpu_plugin.so \
      matplotlib/mpl-data/sample_data numpy/_core/include networkx networkx-*.dist-info \
 && find botocore/data boto3/data -mindepth 1 -maxdepth 1 -type d \
      ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' \) -delete
# paddleslim imports pip, and uses it for what the job has no need of.
RUN mkdir pip && echo '"""Empty: paddleslim imports pip, which this image does without."""' > pip/__init__.py
# Each stage is a process and imports Paddle: bytecode spares every one of them seven seconds. It
# goes by the source's hash and not by its date, and is not checked: nobody writes here any more.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash . \
 && find /opt/job -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM dependencies AS package
ARG SOURCE_DATE_EPOCH=0
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY k8s k8s
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
# Manifests of a folder that is mounted at /work take the place of these.
COPY manifests /work/manifests
# Any user may be set, as OpenShift does: its group is 0.
RUN chown -R 1000:0 /work && chmod -R g=u /work
# HOME: caches of matplotlib, and weights that are downloaded, go to the one folder that is writable
# in a read-only container. JOB_SCRATCH: /tmp may be small, the volume holds what S3 is worked on with.
# LD_PRELOAD: jemalloc makes small INT8 calls quicker; set it empty for
# glibc's allocator, the report says which was used.
ENV PATH=/opt/job/bin:$PATH \
    HOME=/tmp \
    JOB_SCRATCH=/work/.scratch \
    LD_PRELOAD=libjemalloc.so.2 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 1000:0
# tini reaps what a stage leaves behind and passes signals on to the job, which ends with
# 128 + signal; SIGTERM reaches commands, too, that have no handler for it.
ENTRYPOINT ["tini", "--", "job"]
CMD ["--help"]

# A combination that cannot run INT8 never becomes an image. A builder without AVX512_VNNI still
# shows that the libraries work together: only what doctor says of its CPU is overlooked.
FROM job AS proof
COPY tests/container/prove.py /tmp/
RUN python /tmp/prove.py > /tmp/doctor.json

FROM job
# What `job doctor` found where the image was built.
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
