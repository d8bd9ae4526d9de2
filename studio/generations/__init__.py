"""Generations: requests for predictions, their life cycle, and the workers that run them."""
