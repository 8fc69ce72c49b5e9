"""``python -m viscy_utils.cli``, the command ``viscy``."""

from viscy_utils.cli import main

main()
