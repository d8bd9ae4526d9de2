# The image of the API, the workers and the scheduler of periodic tasks (beat). Their commands are in
# compose.yaml. The default environment is production, in which no process starts without a SECRET_KEY.
FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS packages
# requirements-c2pa.txt for exports with signed manifests, requirements-local.txt for a mock
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-c2pa.txt requirements-local.txt ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes --requirement "$REQUIREMENTS"

# The documentation, which the server serves at /guides/.
FROM packages AS site
COPY requirements-docs.txt .
RUN python -m venv /generator \
    && /generator/bin/pip install --no-cache-dir --require-hashes --requirement requirements-docs.txt
COPY . /source
WORKDIR /source
RUN /venv/bin/python -m tools.site.run --generator /generator/bin/zensical --output /site

FROM base
RUN useradd --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin sartiq
COPY --from=packages /venv /venv
COPY pyproject.toml wsgi.py /app/
COPY openapi/openapi.json openapi/mock.yaml /app/openapi/
COPY db /app/db
COPY handlers /app/handlers
COPY studio /app/studio
COPY --from=site /site /app/.site
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENV SARTIQ_ENV=production HOST=0.0.0.0 DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "handlers"]
