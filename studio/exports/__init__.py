"""Exports of approved pictures: what goes into an archive, how its files are called, and who writes it when.

`order.py` freezes an order, `names.py` makes safe names, `archive.py` writes the ZIP, `queue.py` says whose
work it is, `work.py` carries it out.
"""
