-- Which tries were there at each question and budget, kept or not, and what was checked of them?
SELECT
    run_id, shard, sample_id, image_id, resolution, rollout, kind, task, width, height,
    same_view_as, question, target, answer, finish, verified, num_zooms, visual_tokens, necessary,
    sufficient, fewest_looks, tries, tries_right, objections, flaws, weight, policy, tokens_in,
    tokens_out, NULL::VARCHAR AS stage, NULL::VARCHAR AS reason
FROM base.trajectories
UNION ALL BY NAME
SELECT
    run_id, shard, sample_id, image_id, resolution, rollout, kind, task, width, height,
    same_view_as, question, target, answer, finish, verified, num_zooms, visual_tokens, necessary,
    sufficient, fewest_looks, tries, tries_right, objections, flaws, weight, policy, tokens_in,
    tokens_out, stage, reason
FROM base.rejected
