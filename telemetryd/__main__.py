"""`python -m telemetryd`: the same as the installed command."""

import sys

from telemetryd.cli import main

sys.exit(main())
