"""``python -m cytoland``, the command ``cytoland``."""

from cytoland.cli import main

main()
