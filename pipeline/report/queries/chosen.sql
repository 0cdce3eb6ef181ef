-- Which questions are shown? Every task kind and number of looks in turn; the order is a digest of
-- the name, so the same run shows the same ones.
WITH question AS (
    SELECT sample_id, any_value(task) AS task, max(num_zooms) AS looks
    FROM trajectories
    GROUP BY sample_id
),
ranked AS (
    SELECT sample_id, task, looks,
           row_number() OVER (PARTITION BY task, looks ORDER BY md5(sample_id)) AS turn
    FROM question
)
SELECT sample_id
FROM ranked
ORDER BY turn, looks DESC, task, sample_id
LIMIT ?;
