"""The workers of generations: queue, fair scheduling, executor, rendering, polling of remote providers."""
