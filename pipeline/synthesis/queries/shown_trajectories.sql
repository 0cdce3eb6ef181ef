-- Which rows are shown on the card? Those that looked most, of every task in turn, by digest.
WITH path AS (
    SELECT filename, file_row_number, source, license, task, num_zooms, sample_id, resolution,
           row_number() OVER (PARTITION BY sample_id ORDER BY num_zooms DESC, resolution) AS again
    FROM placed
    WHERE verified IS DISTINCT FROM false
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY task ORDER BY num_zooms = 0, md5(sample_id)) AS turn
    FROM path
    WHERE again = 1
)
SELECT filename, file_row_number, source, license
FROM ranked
ORDER BY turn, md5(sample_id), sample_id
LIMIT 24
