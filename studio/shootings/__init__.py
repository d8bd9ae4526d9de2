"""Shootings, their looks and their shots."""
