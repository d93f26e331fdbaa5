"""The command `users`: who may log in to this server. Works beside a running server, on the same store.

A password is asked for twice at a terminal, or read from standard input for scripts; it is never an argument, which
other users of the machine could see. Knows no flags; `__main__` reads them.
"""

from __future__ import annotations

import getpass
import sys
import time
from argparse import Namespace
from collections.abc import Callable

from studio.accounts import MAX_PASSWORD, checked_name, checked_password
from studio.errors import Conflict, InvalidInput
from studio.services import Services, open_services
from studio.settings import Settings


def users(settings: Settings, options: Namespace, *, ask: Callable[[str], str] = getpass.getpass) -> int:
    """List the accounts, or add, change or remove one. Raises InvalidInput or NotFound."""
    services = open_services(settings)
    accounts, name = services.accounts, options.name
    if options.action == "list":
        for account in accounts.list():
            print(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(account.created))}  {account.name}")
        return 0
    if not name:
        raise InvalidInput(f"users {options.action} needs a name.", f"python -m studio users {options.action} NAME")
    if options.action == "add":
        checked_name(name)
        print(f"{accounts.add(name, _password(options, ask)).name} can log in at /account.")
    elif options.action == "passwd":
        accounts.find(name)
        accounts.set_password(name, _password(options, ask))
        print(f"{name} has a new password; all sessions have ended.")
    else:
        _remove(services, name)
    return 0


def _remove(services: Services, name: str) -> None:
    """No login, no links and no open jobs are left; what has ended stays until the retention time is over."""
    account, stopped = services.accounts.remove(name), 0
    for job in services.jobs.list(account.owner, states=("queued", "running", "paused"), limit=100_000):
        try:
            services.jobs.cancel(job.id)
            stopped += 1
        except Conflict:  # it has ended in this moment
            continue
    print(f"{account.name} is removed: logged out everywhere, links revoked, {stopped} open jobs cancelled.")


def _password(options: Namespace, ask: Callable[[str], str]) -> str:
    if options.password_stdin:
        return checked_password(sys.stdin.readline(MAX_PASSWORD + 2).rstrip("\n"))
    first = checked_password(ask("Password: "))
    if ask("The same again: ") != first:
        raise InvalidInput("The two passwords differ.", "Try again.", field="password")
    return first
