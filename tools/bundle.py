"""Bundle openapi/*.yaml into openapi/openapi.json: part of `make openapi`."""

import sys

from tools.review.tools import BUNDLE, SOURCE, ToolFailed, build_bundle
from tools.standard_parts import StandardPartsError

if __name__ == "__main__":
    try:
        build_bundle(SOURCE, BUNDLE)
    except (ToolFailed, StandardPartsError) as error:
        sys.exit(f"{error}\n`make review` says where the mistake is.")
