"""The numbers and names that the record format rests on; they are signed, hashed or mixed into keys.

None of them may ever change: what is written under other ones is another suite, with a number of its own.
"""

from __future__ import annotations

SUITE = 1
"""HPKE with X-Wing (ML-KEM-768 + X25519), HKDF-SHA256 and AES-256-GCM for the data key; AES-256-GCM-SIV for
bodies; Ed25519, and on KEY records ML-DSA-65 as well, for signatures."""

ED25519_KEY_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
MLDSA65_KEY_BYTES = 1952
MLDSA65_SIGNATURE_BYTES = 3309
XWING_KEY_BYTES = 1216
SEED_BYTES = 32
DATA_KEY_BYTES = 32
KEY_ID_BYTES = 8
TAG_BYTES = 16

RECORD_DOMAIN = b"data-embassy record 1\0"
WRAP_DOMAIN = b"data-embassy wrap 1\0"
BODY_KEY_DOMAIN = b"data-embassy body key 1\0"
COMMITMENT_DOMAIN = b"data-embassy commitment 1\0"
KEY_ID_DOMAIN = b"data-embassy key id 1\0"
ESCROW_DOMAIN = b"data-embassy escrow 1\0"

_RECORD_TYPE = "application/vnd.data-embassy.record.v1"
_ENROLMENT_TYPE = "application/vnd.data-embassy.enrolment.v1"
_SUCCESSION_TYPE = "application/vnd.data-embassy.succession.v1"
_ROSTER_TYPE = "application/vnd.data-embassy.roster.v1"
_PROMOTION_TYPE = "application/vnd.data-embassy.promotion.v1"
_REPORT_TYPE = "application/vnd.data-embassy.promotion-report.v1"
_APPROVAL_TYPE = "application/vnd.data-embassy.approval.v1"


def _pae(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed names its kind, so no signature serves for another."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode("ascii"), len(payload), payload)


def record_message(record_hash: bytes) -> bytes:
    """What a producer signs of a record."""
    return _pae(_RECORD_TYPE, record_hash)


def enrolment_message(payload: bytes) -> bytes:
    """What an operator signs of an enrolment."""
    return _pae(_ENROLMENT_TYPE, payload)


def succession_message(payload: bytes) -> bytes:
    """What an operator signs of a succession."""
    return _pae(_SUCCESSION_TYPE, payload)


def roster_message(payload: bytes) -> bytes:
    """What an operator signs of a version of the roster."""
    return _pae(_ROSTER_TYPE, payload)


def promotion_message(payload: bytes) -> bytes:
    """What an operator signs of a promotion's plan."""
    return _pae(_PROMOTION_TYPE, payload)


def report_message(payload: bytes) -> bytes:
    """What an embassy signs of a promotion's report."""
    return _pae(_REPORT_TYPE, payload)


def approval_message(payload: bytes) -> bytes:
    """What an operator signs of an order."""
    return _pae(_APPROVAL_TYPE, payload)
