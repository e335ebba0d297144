"""``python -m service.cli``: the same as ``sonomark``."""

from service.cli import main

main()
