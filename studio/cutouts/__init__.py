"""The cut-outs of product photos: requests, the queue, and the worker that makes and stores them."""
