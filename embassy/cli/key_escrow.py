"""``embassy keys escrow``: a recipient key on paper, that several custodians bring back together."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.key_prompts import ask, new_passphrase
from embassy.cli.options import Options, pass_options
from embassy.cli.telling import tell
from embassy.model.errors import ConfigurationError
from embassy.runtime.audit_line import JSON
from embassy.wire.escrow import (
    CUSTODIANS_MOST,
    load_escrow,
    load_share,
)
from embassy.wire.escrow import (
    recover as recover_seed,
)
from embassy.wire.escrow import (
    split as split_seed,
)
from embassy.wire.keyring import RecipientKey, load_recipient_seed, write_recipient
from embassy.wire.secret_file import write_new

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def escrow() -> None:
    """Keep a recipient key with custodians: any three of five bring it back, two learn nothing.

    \b
    embassy keys generate recipient escrow-2026.json
    embassy keys escrow split escrow-2026.json --to escrow-2026/
    (announce escrow-2026.pub.json at home; give each custodian one share; destroy escrow-2026.json)
    embassy keys escrow recover escrow-2026/escrow.json share-1.json share-4.json share-5.json --to escrow-2026.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@escrow.command()
@click.argument("key", type=_FILE)
@click.option("--custodians", type=click.IntRange(2, CUSTODIANS_MOST), default=5, show_default=True)
@click.option(
    "--threshold",
    type=click.IntRange(2, CUSTODIANS_MOST),
    default=3,
    show_default=True,
    help="How many are needed.",
)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that does not exist yet.",
)
@pass_options
def split(options: Options, key: Path, *, custodians: int, threshold: int, folder: Path) -> None:
    """Lock the secret recipient key in KEY for its custodians: escrow.json, and a share for each.

    Every combination of shares is tried before anything is written. KEY itself stays; destroy it when the shares are with
    their custodians.
    """
    details: dict[str, JSON] = {
        "path": str(key),
        "to": str(folder),
        "custodians": custodians,
        "threshold": threshold,
    }
    with audited(options, "keys.escrow-split", details) as under_way:
        recipient, seed = load_recipient_seed(key, ask(key))
        under_way.note(id=recipient.hex())
        made = split_seed(seed, recipient, custodians=custodians, threshold=threshold)
        for chosen in itertools.combinations(made.shares, threshold):
            assert recover_seed(made.escrow, chosen) == seed, "every combination brings it back"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the folder: {error.strerror}",
                place=str(folder),
                hint="name one that does not exist yet",
            ) from error
        write_new(folder / "escrow.json", made.escrow.render(), mode=0o644)
        for share in made.shares:
            write_new(folder / f"share-{share.custodian}.json", share.render(), mode=0o600)
        under_way.note(escrow=made.escrow.id.hex())
    tell(
        options,
        "embassy.keys-escrow/1",
        {
            "id": recipient.hex(),
            "escrow": made.escrow.id.hex(),
            "folder": str(folder),
            "custodians": custodians,
            "threshold": threshold,
        },
        f"recipient {recipient.hex()}: any {threshold} of {custodians} shares in {folder} bring it back",
        "next: give each custodian one share and everyone escrow.json; then destroy the shares here, and the key",
    )


@escrow.command()
@click.argument("document", type=_FILE)
@click.argument("shares", type=_FILE, nargs=-1, required=True)
@click.option("--to", "path", required=True, type=_FILE, help="Where the key file is written.")
@click.option("--passphrase", "locked", is_flag=True, help="Lock it with a passphrase.")
@pass_options
def recover(options: Options, document: Path, shares: tuple[Path, ...], *, path: Path, locked: bool) -> None:
    """Bring a recipient key back from the escrow in DOCUMENT and enough custodians' SHARES."""
    details: dict[str, JSON] = {"path": str(document), "shares": len(shares), "to": str(path)}
    phrase = new_passphrase() if locked else None
    with audited(options, "keys.escrow-recover", details) as under_way:
        found = load_escrow(document)
        under_way.note(id=found.recipient.hex(), escrow=found.id.hex())
        given = [load_share(share) for share in shares]
        under_way.note(custodians=[share.custodian for share in given])
        seed = recover_seed(found, given)
        if RecipientKey.from_seeds(seed).public.id != found.recipient:
            raise ConfigurationError(
                "what was locked is another key than the document names",
                place=str(document),
                hint="take the document from another custodian",
            )
        made = write_recipient(path, seed, phrase=phrase)
    tell(
        options,
        "embassy.keys-recovered/1",
        {"id": made.id.hex(), "secret": str(made.secret), "public": str(made.public)},
        f"recipient {made.id.hex()}: {made.secret}",
    )
