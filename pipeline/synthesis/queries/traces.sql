-- How many raw turns are there, and whose?
SELECT 'rows' AS name, NULL AS class, count(*) AS value FROM traces
UNION ALL SELECT 'speakers', coalesce(role, 'not known'), count(*) FROM traces GROUP BY role
