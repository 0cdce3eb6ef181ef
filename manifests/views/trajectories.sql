-- Which focus paths were kept, what do they answer, and what did each cost?
SELECT
    t.run_id, t.shard, t.sample_id, t.image_id, t.resolution, t.rollout, t.image_sha256,
    t.source_sha256, t.source, t.license, t.width, t.height, t.view_w, t.view_h, t.same_view_as,
    t.question, t.options, t.target, t.target_boxes, t.task, t.answer, t.final_thought, t.finish,
    t.verified, t.necessary, t.num_zooms, t.visual_tokens, t.policy, t.prompt_sha256, t.tokens_in,
    t.tokens_out, g.seconds, t.recipe, t.kind, t.unaided_answer, t.crop_answer, t.sufficient,
    t.fewest_looks, t.tries, t.tries_right, t.objections, t.flaws, t.weight
FROM base.trajectories t
LEFT JOIN base.timings g
    ON g.run_id = t.run_id AND g.sample_id = t.sample_id
    AND g.resolution = t.resolution AND g.rollout = t.rollout
