-- What did each scorer say of each sample? (A null value means unscored.)
SELECT
    run_id, benchmark, category, method, resolution, rollout, sample_id, item_id, image_id, subject,
    scorer, value, explanation, answer, target, zooms, visual_tokens, tokens_in, tokens_out,
    invalid_calls, finish, outcome, seconds, protocol
FROM base.scores
