"""The application's own subcommands, one module each; :mod:`dynaclr.cli` loads them when they are used."""
