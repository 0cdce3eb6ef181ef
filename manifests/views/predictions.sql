-- What was predicted of each query, and from which exemplars?
SELECT
    run_id, shard, sample_id, item_id, method, exemplars, jaccard, richness
FROM base.predictions
