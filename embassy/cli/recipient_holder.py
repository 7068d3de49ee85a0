"""Who holds the recipient keys for a command that opens records now and then."""

from __future__ import annotations

from embassy.runtime.config import Settings
from embassy.wire.key_client import KeydKeys
from embassy.wire.recipient_keys import HeldKeys, RecipientKeys, load_recipients
from embassy.wire.selftest import selftest


def recipient_holder(settings: Settings) -> RecipientKeys | None:
    """The key files, else the keyd that the configuration names; None if it names neither.

    Raises:
        ConfigurationError: a key cannot be used.
    """
    if settings.keys.recipient is not None:
        selftest()
        return HeldKeys(load_recipients(settings.keys.recipient_files))
    if settings.keyd is not None:
        selftest()
        return KeydKeys(settings.keyd.socket)
    return None
