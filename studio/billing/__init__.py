"""Subscriptions, credits and usage."""
