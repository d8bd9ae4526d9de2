"""What ships or what people run: the contract bundle, its review, clients, site, releases and measurements.

Only tests import this package. It imports no tests, and of `handlers`, but for the benchmark, only what
`tools.project` names.
"""
