"""The command ``viscy``: training, prediction and the tools around them.

Importing this module and asking for ``--help`` costs milliseconds: torch and Lightning are imported when a subcommand
runs. An application that has commands of its own hands the shared ones on::

    from viscy_utils.cli import SUBCOMMANDS, main

    main(sys.argv[1:], prog="dynaclr")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main", "share_cores"],
        "lightning_cli": ["VisCyCLI"],
        "subcommands": ["SUBCOMMANDS", "Subcommand", "format_help"],
    },
)
