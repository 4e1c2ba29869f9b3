# Flower and httpx, nothing of fedft: the SuperLink, and the SuperNode with the relay. Built by docker-compose.yml.
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3 AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt .
RUN python -m venv /opt/flower \
    && /opt/flower/bin/python -m pip install pip==26.3 \
    && /opt/flower/bin/python -m pip install --constraint constraints.txt flwr httpx

FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
COPY --from=build /opt/flower /opt/flower
# The SuperLink's database: a new volume takes over who owns the folder.
RUN install -d -o 10010 -g 10010 -m 0700 /state
# The SuperNode runs this relay, under whatever name Flower starts an app, and no code that the coordinator sends.
COPY client/app.py /opt/relay/relay.py
COPY --chmod=0755 client/own.py /opt/relay/flwr-clientapp
RUN cd /opt/relay && for name in agentapp connector model serverapp simulation; do cp flwr-clientapp flwr-$name; done
ENV PATH=/opt/relay:/opt/flower/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
CMD ["flower-supernode", "--version"]
USER 10021:10020
