-- Which boxes were named, which of them were zoomed, and what did that bring?
SELECT
    run_id, sample_id, resolution, rollout, step, region, thought, x0, y0, x1, y1, label, tool,
    zoomed, no_gain, parent, view_w, view_h, magnification, visual_tokens, confidence, target_iou,
    mask_iou, saliency_inside, crop_sha256
FROM base.steps
