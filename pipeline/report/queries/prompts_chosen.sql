-- Which prompts are shown? Every task and number of objects in turn; the order is a digest of the
-- name, so the same run shows the same ones.
WITH ranked AS (
    SELECT sample_id, task, num_objects,
           row_number() OVER (PARTITION BY task, num_objects ORDER BY md5(sample_id)) AS turn
    FROM prompts
)
SELECT sample_id
FROM ranked
ORDER BY turn, num_objects DESC, task, sample_id
LIMIT ?;
