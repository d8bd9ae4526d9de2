"""Exports: ZIP archives of approved predictions.

`create` fixes the contents of an export, `names` makes safe file names, `archive` writes the ZIP file,
`queue` leases pending exports to workers, and `worker` runs them.
"""
