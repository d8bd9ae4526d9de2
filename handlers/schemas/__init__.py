"""What a row looks like outside: one marshmallow schema per resource.

Rules about values are in the contract only.
"""
