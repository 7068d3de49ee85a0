"""What is true of every property at any moment."""

from __future__ import annotations

from deploy.workload.registry import Invariant

INVARIANTS = (
    Invariant(
        "shares_of_a_property_sum_to_one",
        """
        SELECT number FROM land_register.property LEFT JOIN land_register.owner USING (number) GROUP BY number
        HAVING coalesce(sum(numerator * (5040 / denominator)), 0) <> 5040""",
        "UPDATE land_register.owner SET numerator = numerator + 1",
    ),
    Invariant(
        "mortgages_are_ranked_without_gaps_and_add_up",
        """
        SELECT p.number FROM land_register.property AS p
        LEFT JOIN land_register.mortgage AS m USING (number) GROUP BY p.number
        HAVING count(m.id) <> p.mortgages OR coalesce(sum(m.amount), 0) <> p.mortgaged
            OR coalesce(max(m.rank), 0) <> p.mortgages OR count(DISTINCT m.rank) <> p.mortgages""",
        "UPDATE land_register.mortgage SET rank = rank + 1",
    ),
    Invariant(
        "entries_are_counted",
        """
        SELECT p.number FROM land_register.property AS p
        LEFT JOIN land_register.entry AS e USING (number) GROUP BY p.number HAVING count(e.id) <> p.entries""",
        "DELETE FROM land_register.entry WHERE part = 'II'",
    ),
    Invariant(
        "creditors_are_owed_their_mortgages",
        """
        SELECT creditor FROM land_register.creditor_total AS t
        FULL JOIN (SELECT creditor, sum(amount) AS amount FROM land_register.mortgage
                   GROUP BY creditor) AS m USING (creditor)
        WHERE coalesce(t.amount, 0) <> coalesce(m.amount, 0)""",
        "UPDATE land_register.creditor_total SET amount = amount + 1",
    ),
    Invariant(
        "nothing_is_entered_about_no_property",
        """
        SELECT number FROM (SELECT number FROM land_register.owner UNION SELECT number FROM land_register.mortgage
                            UNION SELECT number FROM land_register.entry) AS entered
        WHERE NOT EXISTS (SELECT FROM land_register.property AS p WHERE p.number = entered.number)""",
        "DELETE FROM land_register.property WHERE number % 2 = 0",
    ),
)
