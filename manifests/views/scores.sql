-- What did each scorer say of each sample? (A null value means unscored.)
SELECT
    run_id, benchmark, category, method, resolution, rollout, sample_id, scorer, value,
    explanation, zooms, visual_tokens, seconds, protocol
FROM base.scores
