-- What was answered at each budget, for these questions?
SELECT sample_id, image_id, resolution, rollout, source, license, width, height, view_w, view_h,
       same_view_as, question, options, target, target_boxes, task, answer, final_thought, finish,
       verified, num_zooms, visual_tokens, seconds
FROM trajectories
WHERE list_contains(?, sample_id)
ORDER BY sample_id, resolution, rollout;
