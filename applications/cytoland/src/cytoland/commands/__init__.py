"""The application's own subcommands; :mod:`cytoland.cli` loads them when they are used."""
