"""What is true of the population at any moment."""

from __future__ import annotations

from deploy.workload.registry import Invariant

INVARIANTS = (
    Invariant(
        "homes_count_their_residents",
        """
        SELECT r.id FROM population.residence AS r
        LEFT JOIN (SELECT residence_id, count(*) AS residents FROM population.person
                   WHERE died = 'infinity' GROUP BY residence_id) AS p ON p.residence_id = r.id
        WHERE r.residents <> coalesce(p.residents, 0)""",
        "UPDATE population.person SET residence_id = 1 WHERE died = 'infinity'",
    ),
    Invariant(
        "the_married_are_in_one_marriage",
        """
        SELECT p.personal_code, p.status, count(m.id) FROM population.person AS p
        LEFT JOIN (SELECT id, unnest(ARRAY[first_spouse, second_spouse]) AS spouse
                   FROM population.marriage WHERE upper_inf(during)) AS m ON m.spouse = p.personal_code
        GROUP BY p.personal_code
        HAVING count(m.id) <> (p.status = 'married' AND p.died = 'infinity')::integer""",
        "UPDATE population.person SET status = 'married' WHERE status <> 'married'",
    ),
    Invariant(
        "statistics_count_the_living",
        """
        SELECT v.living, p.living, v.births, k.births FROM population.vital_statistics AS v,
            (SELECT count(*) FILTER (WHERE died = 'infinity') AS living,
                    count(*) FILTER (WHERE died <> 'infinity') AS dead FROM population.person) AS p,
            (SELECT count(DISTINCT child) AS births FROM population.kinship) AS k
        WHERE (v.living, v.deaths, v.births) <> (p.living, p.dead, k.births)""",
        "UPDATE population.person SET died = '2026-12-31' WHERE died = 'infinity'",
    ),
    Invariant(
        "children_have_two_known_parents",
        """
        SELECT k.child FROM population.kinship AS k
        LEFT JOIN population.person AS c ON c.personal_code = k.child
        LEFT JOIN population.person AS p ON p.personal_code = k.parent
        GROUP BY k.child HAVING count(p.personal_code) <> 2 OR count(c.personal_code) <> 2""",
        "INSERT INTO population.kinship SELECT personal_code, '80000000000' FROM population.person LIMIT 2",
    ),
)
