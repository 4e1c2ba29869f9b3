# fedft with torch: the agent, and the coordinator's superexec, where the ServerApp runs. Built by docker-compose.yml.
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3 AS build
# More packages, as bitsandbytes for quantised bases: docker compose build --build-arg MORE=bitsandbytes==VERSION agent
ARG MORE=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY . .
RUN python -m venv /opt/fedft \
    && /opt/fedft/bin/python -m pip install pip==26.3 \
    && /opt/fedft/bin/python -m pip install --constraint constraints.txt . ${MORE} \
    && mkdir -p /opt/fedft/share/fedft \
    && cp -r server client /opt/fedft/share/fedft/

FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
COPY --from=build /opt/fedft /opt/fedft
ENV PATH=/opt/fedft/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
CMD ["fedft", "version"]
USER 10020:10020
