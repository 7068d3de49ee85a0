"""The product's own tables in a registry's database: which of them travel in the stream."""

from __future__ import annotations

OWN_SCHEMA = "embassy"
PUBLISHED = (
    "heartbeat",
    "stream",
    "table_copy",
    "ddl",
    "ddl_rows",
    "sequence_state",
    "fence",
    "verify_message",
    "large_object_change",
    "large_object_state",
)
"""Same name and columns on both sides; the others say what one side is."""
HEARTBEAT = (OWN_SCHEMA, "heartbeat")
"""The stream's heart."""
HOUSEKEEPING = frozenset({HEARTBEAT, (OWN_SCHEMA, "large_object_state")})
"""What is written because time passes, and not because the registry has committed something."""
VERIFY_MESSAGES = (OWN_SCHEMA, "verify_message")
"""What home says of its rows."""
