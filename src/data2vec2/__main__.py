"""`python -m data2vec2`."""

import sys

from data2vec2.cli import main

sys.exit(main())
