"""What is true of all identity documents at any moment."""

from __future__ import annotations

from deploy.workload.registry import Invariant

INVARIANTS = (
    Invariant(
        "status_is_the_last_change",
        """
        SELECT d.number FROM identity_documents.document AS d
        LEFT JOIN identity_documents.status_change AS c USING (number) GROUP BY d.number
        HAVING count(c.change) <> d.changes OR max(c.change) <> d.changes
            OR max(c.status::text) FILTER (WHERE c.change = d.changes) IS DISTINCT FROM d.status::text""",
        "UPDATE identity_documents.document SET status = 'suspended' WHERE status = 'valid'",
    ),
    Invariant(
        "the_revoked_are_on_the_list",
        """
        SELECT number FROM (SELECT number FROM identity_documents.document WHERE status = 'revoked') AS d
        FULL JOIN identity_documents.revocation AS r USING (number)
        WHERE (d.number IS NULL) <> (r.number IS NULL) OR d.number IS NULL""",
        "INSERT INTO identity_documents.revocation VALUES ('nobody''s', 1, 'none')",
    ),
    Invariant(
        "the_list_counts_its_entries",
        """
        SELECT l.entries, l.version FROM identity_documents.revocation_list AS l,
            (SELECT count(*) AS entries, coalesce(max(list_version), 0) AS newest
             FROM identity_documents.revocation) AS r
        WHERE l.entries <> r.entries OR l.version < r.newest""",
        "UPDATE identity_documents.revocation_list SET entries = entries + 1",
    ),
    Invariant(
        "stock_counts_what_was_issued",
        """
        SELECT s.series FROM identity_documents.blank_stock AS s
        LEFT JOIN (SELECT series, count(*) AS issued FROM identity_documents.document
                   GROUP BY series) AS d USING (series)
        WHERE s.issued <> coalesce(d.issued, 0)""",
        "UPDATE identity_documents.document SET series = 'AA'",
    ),
    Invariant(
        "readers_count_their_log",
        """
        SELECT reader FROM identity_documents.reader AS r
        FULL JOIN (SELECT reader, count(*) AS log_lines FROM identity_documents.reader_log
                   GROUP BY reader) AS l USING (reader)
        WHERE r.log_lines IS NULL OR r.log_lines <> coalesce(l.log_lines, 0)""",
        "UPDATE identity_documents.reader SET log_lines = log_lines + 1",
    ),
    Invariant(
        "changes_belong_to_a_document",
        """
        SELECT c.number FROM identity_documents.status_change AS c
        LEFT JOIN identity_documents.document AS d USING (number) WHERE d.number IS NULL""",
        "DELETE FROM identity_documents.document WHERE series = 'KE'",
    ),
)
