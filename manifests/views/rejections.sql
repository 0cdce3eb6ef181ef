-- Which samples were rejected, where, and why?
SELECT run_id, shard, sample_id, resolution, rollout, stage, reason, detail
FROM base.rejections
