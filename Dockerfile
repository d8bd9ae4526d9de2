# The image of the API, the workers and the scheduler of periodic tasks (beat). Their commands are in
# compose.yaml. The default environment is production, in which no process starts without a SECRET_KEY.
FROM python:3.13.15-slim-trixie AS packages
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt

FROM python:3.13.15-slim-trixie
RUN useradd --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin sartiq
COPY --from=packages /venv /venv
COPY . /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENV SARTIQ_ENV=production HOST=0.0.0.0 DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "handlers"]
