-- Which model calls were made and paid for, those of lost attempts included?
SELECT
    run_id, shard, attempt, sample_id, resolution, rollout, turn, role, model, status, tries,
    latency_s, tokens_in, tokens_out, cost_usd, replayed
FROM base.calls
