"""From stores and tracking tables to the two YAML files of a first training run.

What is there is looked at (:mod:`~dynaclr.proposal.facts`), settings that suit it are chosen with a reason each
(:mod:`~dynaclr.proposal.settings`), and both files are written out with these reasons as comments
(:mod:`~dynaclr.proposal.files`).
"""
