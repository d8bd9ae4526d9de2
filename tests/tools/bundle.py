"""Bundle openapi/*.yaml into openapi/openapi.json: part of `make openapi`."""

import sys

from tests.tools.review.tools import BUNDLE, SOURCE, ToolFailed, build_bundle

if __name__ == "__main__":
    try:
        build_bundle(SOURCE, BUNDLE)
    except ToolFailed as error:
        sys.exit(f"{error}\n`make review` says where the mistake is.")
