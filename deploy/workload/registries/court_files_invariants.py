"""What is true of every court case at any moment."""

from __future__ import annotations

from deploy.workload.registry import Invariant

INVARIANTS = (
    Invariant(
        "cases_count_their_documents",
        """
        SELECT case_no FROM court_files."case" AS c
        FULL JOIN (SELECT case_no, count(*) AS documents, sum(octet_length(content)) AS document_bytes
                   FROM court_files.document GROUP BY case_no) AS d USING (case_no)
        WHERE c.documents IS NULL OR c.documents <> coalesce(d.documents, 0)
           OR c.document_bytes <> coalesce(d.document_bytes, 0)""",
        "UPDATE court_files.document SET content = content || '\\x00'",
    ),
    Invariant(
        "documents_are_what_was_signed",
        """
        SELECT id FROM court_files.document
        WHERE CASE WHEN octet_length(content) < 60000 THEN sha256(content) <> sha256 END""",
        "UPDATE court_files.document SET content = overlay(content PLACING '\\x00ff00' FROM 1)",
    ),
    Invariant(
        "cases_count_their_parties",
        """
        SELECT case_no FROM court_files."case" AS c
        FULL JOIN (SELECT case_no, count(*) AS parties FROM court_files.party GROUP BY case_no) AS p USING (case_no)
        WHERE c.parties IS DISTINCT FROM p.parties""",
        "DELETE FROM court_files.party WHERE role = 'defendant'",
    ),
    Invariant(
        "rulings_are_of_cases_ruled_on",
        """
        SELECT case_no FROM (SELECT case_no FROM court_files."case" WHERE state IN ('ruled', 'closed')) AS c
        FULL JOIN court_files.ruling AS r USING (case_no)
        WHERE c.case_no IS NULL OR r.case_no IS NULL""",
        "UPDATE court_files.\"case\" SET state = 'ruled'",
    ),
    Invariant(
        "rooms_count_their_hearings",
        """
        SELECT room FROM court_files.room_calendar AS r
        FULL JOIN (SELECT room, count(*) AS hearings, max(upper(during)) AS booked_until
                   FROM court_files.hearing GROUP BY room) AS h USING (room)
        WHERE r.hearings IS NULL OR r.hearings <> coalesce(h.hearings, 0) OR h.booked_until > r.booked_until""",
        "UPDATE court_files.room_calendar SET hearings = hearings + 1",
    ),
    Invariant(
        "no_room_is_booked_twice",
        """
        SELECT a.id FROM court_files.hearing AS a
        JOIN court_files.hearing AS b ON b.room = a.room AND b.during && a.during AND b.id <> a.id""",
        """
        INSERT INTO court_files.hearing (case_no, room, during)
        SELECT case_no, 1, '[2001-01-01,2002-01-01)' FROM court_files."case" LIMIT 2""",
    ),
    Invariant(
        "hearings_are_of_cases_that_exist",
        """
        SELECT h.case_no FROM court_files.hearing AS h
        LEFT JOIN court_files."case" AS c USING (case_no) WHERE c.case_no IS NULL OR c.state = 'opened'""",
        "UPDATE court_files.\"case\" SET state = 'opened'",
    ),
)
