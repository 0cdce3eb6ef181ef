-- What was looked at, and what came back, for these questions?
SELECT sample_id, resolution, rollout, step, region, thought, x0, y0, x1, y1, label, tool, zoomed,
       no_gain, view_w, view_h, magnification, visual_tokens, confidence, target_iou
FROM steps
WHERE list_contains(?, sample_id)
ORDER BY sample_id, resolution, rollout, step, region;
