-- How many boxes were named, how many of them were zoomed, and with which tools?
SELECT 'rows' AS name, NULL AS class, count(*) AS value FROM steps
UNION ALL SELECT 'zoomed', NULL, count(*) FILTER (zoomed) FROM steps
UNION ALL SELECT 'no_gain', NULL, count(*) FILTER (no_gain) FROM steps
UNION ALL SELECT 'tools', coalesce(tool, 'not known'), count(*) FROM steps GROUP BY tool
