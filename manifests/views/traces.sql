-- What was said, turn by turn, before it was summarised?
SELECT run_id, sample_id, resolution, rollout, turn, role, text, tool, result
FROM base.traces
