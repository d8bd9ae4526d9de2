"""The providers of generation models: each renders images from the fixed inputs of a generation.

`registry` lists them with their limits, `base` defines the interface of providers that run in this process,
`local` and `local_renderer` are the local studio, `compute` is the client of a Compute API, `openai_images`
and `openai_images_client` that of an Images API, `sample` draws the sample images of the mock server, and
`config` masks secrets. Providers know no rows.
"""
