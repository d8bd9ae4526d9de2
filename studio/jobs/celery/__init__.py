"""Celery: the application, its worker process and the relay that wakes workers up."""
