-- Which parts are committed, by whom, and how large are they?
SELECT
    run_id, kind, shard, part, attempt, rows, bytes, sha256, seconds, worker,
    committed_at AT TIME ZONE 'UTC' AS committed_at
FROM base.records
