"""Publications: public URLs of approved predictions, and the variants of their images.

`publish` starts and ends publications, `files` chooses the file of a request, `worker` makes the variants.
"""
