-- Which paths failed and are kept as negatives?
SELECT 'rows' AS name, NULL AS class, count(*) AS value FROM rejected
UNION ALL
SELECT 'reasons', coalesce(stage || '/' || reason, 'not known'), count(*)
FROM rejected GROUP BY stage, reason
