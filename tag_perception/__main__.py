"""Entry point of `python -m tag_perception`."""

import sys

from tag_perception.entry import tag_perception

sys.exit(tag_perception())
