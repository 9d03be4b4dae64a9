FROM python:3.11-slim

# pip reads build arguments named PIP_*: docs/install.md says how to choose the CPU or the CUDA build of torch.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

COPY pyproject.toml requirements.lock README.md LICENSE /build/
COPY src /build/src
RUN pip install --constraint /build/requirements.lock '/build[torch,serve]' && rm -rf /build \
 && useradd --create-home foretell

USER foretell
WORKDIR /home/foretell
ENTRYPOINT ["foretell"]
CMD ["--help"]
