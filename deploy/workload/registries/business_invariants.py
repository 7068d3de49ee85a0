"""What is true of every company at any moment."""

from __future__ import annotations

from deploy.workload.registry import Invariant

INVARIANTS = (
    Invariant(
        "one_chair_and_unbroken_positions",
        """
        SELECT registry_code FROM business.company
        LEFT JOIN business.board_member USING (registry_code) GROUP BY registry_code
        HAVING count(*) FILTER (WHERE chairs) <> 1
            OR count(DISTINCT position) <> count(position) OR max(position) <> count(position)""",
        "UPDATE business.board_member SET chairs = false WHERE position = 1",
    ),
    Invariant(
        "shares_add_up",
        """
        SELECT registry_code FROM business.company AS c
        LEFT JOIN (SELECT registry_code, sum(shares) AS held FROM business.shareholder
                   GROUP BY registry_code) AS s USING (registry_code)
        WHERE c.shares IS DISTINCT FROM s.held""",
        "UPDATE business.company SET shares = shares + 1",
    ),
    Invariant(
        "each_revision_has_its_history",
        """
        SELECT registry_code FROM business.company AS c
        LEFT JOIN business.company_history AS h USING (registry_code) GROUP BY registry_code, c.revision
        HAVING count(h.id) <> c.revision OR max(h.revision) <> c.revision""",
        "DELETE FROM business.company_history WHERE revision = 1",
    ),
    Invariant(
        "statuses_are_counted",
        """
        SELECT status FROM business.status_count AS s
        FULL JOIN (SELECT status, count(*) AS companies FROM business.company GROUP BY status) AS c USING (status)
        WHERE coalesce(s.companies, 0) <> coalesce(c.companies, 0)""",
        "UPDATE business.company SET status = 'bankrupt' WHERE status <> 'bankrupt'",
    ),
    Invariant(
        "nothing_belongs_to_no_company",
        """
        SELECT registry_code FROM (
            SELECT registry_code FROM business.board_member UNION SELECT registry_code FROM business.shareholder
            UNION SELECT registry_code FROM business.annual_report
            UNION SELECT registry_code FROM business.company_history) AS child
        WHERE NOT EXISTS (SELECT FROM business.company AS c WHERE c.registry_code = child.registry_code)""",
        "DELETE FROM business.company WHERE registry_code % 2 = 0",
    ),
)
