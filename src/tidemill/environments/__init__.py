"""Environments of packages: what `requirements.txt` asks for, installed once with uv and kept for all runs.

`requirements` reads what is asked for, `own` says whether our own Python has it already, `cache` keeps environments and
hands them out, `building` makes one, `builders` makes them for a server's loops, `finding` puts all of that together.
"""
