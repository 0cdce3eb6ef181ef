-- Which samples did the run reject, where and why? (Details may hold words of a model: left out.)
SELECT sample_id, resolution, rollout, stage, reason
FROM rejections
ORDER BY ALL
