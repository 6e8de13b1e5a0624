# taskq with its Redis executor and the examples, for docker-compose.yml.
FROM python:3.13-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY taskq taskq
COPY executors executors
RUN pip install --no-cache-dir ".[redis]"
COPY examples examples

# jobs have no business with root
RUN useradd --system taskq
USER taskq
ENV PYTHONUNBUFFERED=1
CMD ["taskq", "--help"]
