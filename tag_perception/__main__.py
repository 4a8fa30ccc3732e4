"""Entry point of `python -m tag_perception`."""

import sys

from tag_perception.cli import main

sys.exit(main())
