-- Which rejected rows are shown? One of each reason first, then other samples before other budgets.
WITH again AS (
    SELECT sample_id, resolution, rollout, stage, reason, detail,
           row_number() OVER (
               PARTITION BY stage, reason, sample_id ORDER BY resolution, rollout
           ) AS again
    FROM rejections
),
ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY stage, reason ORDER BY again, md5(sample_id), resolution
    ) AS turn
    FROM again
)
SELECT sample_id, resolution, rollout, stage, reason, coalesce(detail, '') AS detail
FROM ranked
ORDER BY turn, stage, reason, sample_id
LIMIT ?;
