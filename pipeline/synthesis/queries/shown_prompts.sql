-- Which prompts are shown on the card? Of every task and number of objects in turn, by digest.
WITH ranked AS (
    SELECT filename, file_row_number, source, license, sample_id,
           row_number() OVER (PARTITION BY task, num_objects ORDER BY md5(sample_id)) AS turn
    FROM placed
)
SELECT filename, file_row_number, source, license
FROM ranked
ORDER BY turn, md5(sample_id), sample_id
LIMIT 24
