"""What ships or what people run: the contract bundle, its review, clients, site, releases and measurements.

Only tests import this package.
"""
