-- How many samples were rejected, and why? (What was set aside for balance is no failure.)
SELECT 'rows' AS name, NULL AS class, count(*) AS value FROM rejections
UNION ALL SELECT 'set_aside', NULL, count(*) FILTER (stage = 'balance') FROM rejections
UNION ALL
SELECT 'reasons', coalesce(stage || '/' || reason, 'not known'), count(*)
FROM rejections GROUP BY stage, reason
