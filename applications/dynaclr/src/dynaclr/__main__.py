"""``python -m dynaclr``, the command ``dynaclr``."""

from dynaclr.cli import main

main()
