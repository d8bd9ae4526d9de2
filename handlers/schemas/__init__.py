"""The marshmallow schemas that serialize rows, one module per tag. The contract alone validates values."""
