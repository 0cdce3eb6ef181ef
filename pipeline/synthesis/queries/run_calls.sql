-- Which model calls did the run make and pay for, by role and model?
SELECT
    role, model, status,
    count(*) AS calls,
    coalesce(sum(tries), 0)::BIGINT AS tries,
    coalesce(sum(tokens_in), 0)::BIGINT AS tokens_in,
    coalesce(sum(tokens_out), 0)::BIGINT AS tokens_out,
    round(fsum(cost_usd), 6) AS cost_usd
FROM calls
WHERE NOT coalesce(replayed, false)
GROUP BY role, model, status
ORDER BY ALL
