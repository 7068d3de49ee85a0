"""Known answers, computed at start-up: a machine that cannot seal, open and refuse must not try.

A program of this kind once wrote plain text because a library was missing (CVE-2021-38599).
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.wire import verifying
from embassy.wire.data_key import DataKey
from embassy.wire.enrolment import Enrolment
from embassy.wire.keyring import Identity, RecipientKey
from embassy.wire.opening import Opener
from embassy.wire.record_codec import decode_record
from embassy.wire.sealing import Sealer
from embassy.wire.suite import SUITE
from embassy.wire.verifying import broken_cryptography

# RFC 8452, appendix C.2: an eight-byte message without associated data.
_SIV_KEY = bytes([1, *bytes(31)])
_SIV_NONCE = bytes([3, *bytes(11)])
_SIV_PLAIN = bytes([1, *bytes(7)])
_SIV_SEALED = "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"
# draft-connolly-cfrg-xwing-kem, test vector 1: the SHA-256 of its public key.
_XWING_SEED = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
_XWING_PUBLIC = "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb"
# Our own derivations from a key of zeros.
_COMMITMENT = "872d7bc28ede3d082b5bd851d2b78d72cc21b57d33a013745409ebbad49ea9a2"


def selftest() -> None:
    """Prove that this machine can sign, verify, seal and open, and that it refuses what was altered.

    Raises:
        ConfigurationError: an algorithm is missing, or an answer is wrong.
    """
    verifying.selftest()
    try:
        sealed = AESGCMSIV(_SIV_KEY).encrypt(_SIV_NONCE, _SIV_PLAIN, b"")
        recipient = RecipientKey.from_seeds(bytes.fromhex(_XWING_SEED))
        public = hashlib.sha256(recipient.public.xwing).hexdigest()
        commitment = DataKey(bytes(32), bytes(16)).commitment.hex()
        opened, refused = _round_trip(recipient)
    except (UnsupportedAlgorithm, ValueError) as error:
        raise broken_cryptography(error) from error
    answers = (sealed.hex(), public, commitment, opened, refused)
    if answers != (_SIV_SEALED, _XWING_PUBLIC, _COMMITMENT, True, True):
        raise broken_cryptography("")


def _round_trip(recipient: RecipientKey) -> tuple[bool, bool]:
    """Whether a body opens, and whether one with a changed bit does not."""
    identity = Identity.from_seeds(bytes(32), bytes(32))
    enrolment = Enrolment(bytes(16), 1, SUITE, identity.public, Lsn(0), bytes(32))
    sealer, opener = Sealer(identity, enrolment, [recipient.public]), Opener(recipient, enrolment)
    key = sealer.key_record(Head.genesis(bytes(32), 1, Lsn(0)), bytes(16), system_identifier=0, timeline=1)
    opener.take_key(decode_record(key.value))
    data_key, header = DataKey(bytes(32), bytes(16)), b"header"
    body = data_key.seal(_SIV_PLAIN, 1, header)
    altered = bytes([body[0] ^ 1]) + body[1:]
    return data_key.open(body, 1, header) == _SIV_PLAIN, data_key.open(altered, 1, header) is None
