-- For questions that the largest budget answers rightly without a look: which share of that one
-- view's tokens does the path at each smaller budget need for the same answer? (mean, 95 % interval)
WITH largest AS (
    SELECT max(resolution) AS resolution FROM trajectories
),
direct AS (
    SELECT sample_id, rollout, visual_tokens
    FROM trajectories
    JOIN largest USING (resolution)
    WHERE verified AND num_zooms = 0
),
share AS (
    SELECT t.resolution, t.visual_tokens / direct.visual_tokens AS share
    FROM trajectories AS t
    JOIN direct USING (sample_id, rollout)
    JOIN largest ON t.resolution < largest.resolution
    WHERE t.verified
)
SELECT resolution,
       count(*) AS pairs,
       avg(share) AS share,
       1.96 * stddev_samp(share) / sqrt(count(*)) AS half_width
FROM share
GROUP BY resolution
ORDER BY resolution;
