"""`pillion acl`: the users that a Redis with access control needs for this configuration, as `ACL SETUSER` lines.

It asks no server and holds no password. The lines go to stdout, one for each role, so that they can be piped into
`redis-cli`; they may be run again at any time, after an upgrade for example, and keep the passwords that are set.
"""

from __future__ import annotations

from pathlib import Path

import click

from pillion.cli import say
from pillion.cli.settings import ENVIRONMENT, FILE, use


@click.command("acl")
@click.argument("roles", nargs=-1, metavar="[ROLE...]")
@click.option("--user", metavar="NAME", help="The user's name, for one ROLE; pillion-ROLE if left out.")
@ENVIRONMENT
@FILE
def command(roles: tuple[str, ...], user: str | None, environment: str | None, file: Path | None) -> int:
    """Print `ACL SETUSER` lines for users that may do what their work needs and nothing else.

    ROLE is producer, once-producer, worker, viewer or operator; all of them if left out. Set passwords yourself:
    redis-cli ACL SETUSER pillion-worker '>the-password'
    """
    from pillion import acl
    from pillion.store.address import target_of

    known = acl.roles()
    for name in roles:
        if name not in known:
            raise click.UsageError(f"no role `{name}`; known are {', '.join(known)}")
    if user and len(roles) != 1:
        raise click.UsageError("--user names the user of one role; name the ROLE")
    setup = use(file=file, environment=environment)
    places = [shard.settings for shard in setup.shards]
    dbs = [target_of(place).address.db for place in places if place.is_somewhere]
    for name in roles or known:
        click.echo(acl.line(known[name], user or f"pillion-{name}", places, dbs))
    if say.on_terminal():
        say.note("no passwords are set by these lines; see docs/security.md")
    return 0
