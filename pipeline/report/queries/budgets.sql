-- How did each budget do: what was solved, in how many looks, and what had to be seen for it?
WITH kept AS (
    SELECT resolution,
           count(*) AS kept,
           count(*) FILTER (verified) AS right_answers,
           count(*) FILTER (verified AND num_zooms = 0) AS direct_answers,
           count(*) FILTER (same_view_as IS NOT NULL) AS shared_view,
           avg(num_zooms) AS looks,
           avg(num_zooms) FILTER (same_view_as IS NULL) AS looks_own_view,
           avg(visual_tokens) AS tokens,
           avg((view_w // 28) * (view_h // 28)) AS view_tokens,
           median(seconds) FILTER (same_view_as IS NULL) AS seconds
    FROM trajectories
    GROUP BY resolution
),
refused AS (
    SELECT resolution, count(*) AS rejected
    FROM rejections
    WHERE resolution > 0
    GROUP BY resolution
),
last_box AS (
    SELECT resolution, arg_max(target_iou, step * 1000 + region) AS iou
    FROM steps
    SEMI JOIN trajectories USING (sample_id, resolution, rollout)
    WHERE zoomed
    GROUP BY sample_id, resolution, rollout
),
aim AS (
    SELECT resolution, avg(iou) AS last_iou FROM last_box GROUP BY resolution
)
SELECT resolution,
       coalesce(kept, 0) AS kept,
       coalesce(rejected, 0) AS rejected,
       coalesce(right_answers, 0) / (coalesce(kept, 0) + coalesce(rejected, 0)) AS solved,
       coalesce(direct_answers, 0) / (coalesce(kept, 0) + coalesce(rejected, 0)) AS direct,
       coalesce(shared_view, 0) AS shared_view,
       looks, looks_own_view, tokens, view_tokens, last_iou, seconds
FROM kept
FULL JOIN refused USING (resolution)
LEFT JOIN aim USING (resolution)
ORDER BY resolution;
