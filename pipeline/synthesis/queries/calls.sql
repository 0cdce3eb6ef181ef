-- How many model calls were made, by whom, and what did they cost? (Lost attempts were paid for, too.)
SELECT 'rows' AS name, NULL AS class, count(*) AS value FROM calls
UNION ALL SELECT 'calls', NULL, coalesce(sum(calls), 0)::DOUBLE FROM calls
UNION ALL SELECT 'tokens_in', NULL, coalesce(sum(tokens_in), 0)::DOUBLE FROM calls
UNION ALL SELECT 'tokens_out', NULL, coalesce(sum(tokens_out), 0)::DOUBLE FROM calls
UNION ALL
SELECT 'cost_usd', NULL, round(fsum(cost_usd), 6) FROM calls HAVING count(cost_usd) > 0
UNION ALL SELECT 'roles', coalesce(role, 'not known'), sum(calls)::DOUBLE FROM calls GROUP BY role
UNION ALL SELECT 'models', coalesce(model, 'not known'), sum(calls)::DOUBLE FROM calls GROUP BY model
UNION ALL
SELECT 'states', coalesce(status, 'not known'), sum(calls)::DOUBLE FROM calls GROUP BY status
