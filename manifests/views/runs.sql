-- Which runs are there, how far is each, and what did it cost?
WITH last_event AS (
    SELECT run_id, arg_max(event, "at") AS event
    FROM base.events
    WHERE event IN ('started', 'resumed', 'interrupted', 'budget', 'failed', 'finished')
    GROUP BY run_id
),
session AS (
    SELECT
        run_id,
        min("at") AS started_at,
        max("at") FILTER (event = 'finished') AS finished_at
    FROM base.events
    GROUP BY run_id
),
committed AS (
    SELECT
        run_id,
        count(*) FILTER (last) AS shards_ended,
        sum(rows)::BIGINT AS rows,
        sum(rejected)::BIGINT AS rejected
    FROM base.records
    GROUP BY run_id
),
spent AS (
    SELECT
        run_id,
        sum(cost_usd) AS cost_usd,
        sum(tokens_in)::BIGINT AS tokens_in,
        sum(tokens_out)::BIGINT AS tokens_out
    FROM base.calls
    -- A call that was replayed was paid for by an attempt before, whose row tells what.
    WHERE NOT coalesce(replayed, false)
    GROUP BY run_id
)
SELECT
    r.run_id,
    r.kind,
    r.recipe,
    CASE last_event.event
        WHEN 'finished' THEN 'done'
        WHEN 'started' THEN 'running'
        WHEN 'resumed' THEN 'running'
        ELSE coalesce(last_event.event, 'planned')
    END AS status,
    session.started_at AT TIME ZONE 'UTC' AS started_at,
    session.finished_at AT TIME ZONE 'UTC' AS finished_at,
    r.shards_total,
    -- A run that was asked for N rows is done with shards it did not read to their end.
    CASE WHEN last_event.event = 'finished' THEN r.shards_total
         ELSE coalesce(committed.shards_ended, 0) END AS shards_done,
    coalesce(committed.rows, 0) AS rows,
    coalesce(committed.rejected, 0) AS rejected,
    spent.cost_usd,
    spent.tokens_in,
    spent.tokens_out,
    r.parents
FROM base.runs r
LEFT JOIN last_event USING (run_id)
LEFT JOIN session USING (run_id)
LEFT JOIN committed USING (run_id)
LEFT JOIN spent USING (run_id)
