-- How often was each question solved at each budget, and with how few looks?
SELECT
    run_id,
    sample_id,
    any_value(image_id) AS image_id,
    any_value(kind) AS kind,
    any_value(task) AS task,
    resolution,
    count(*) AS tries,
    count(*) FILTER (verified) AS tries_right,
    count(*) FILTER (stage IS NULL) AS kept,
    min(num_zooms) FILTER (verified) AS fewest_zooms,
    min(fewest_looks) AS fewest_looks,
    sum(tokens_in + tokens_out)::BIGINT AS tokens
FROM tries
-- Where first views are equal, the tries of the lowest budget stand for all.
WHERE same_view_as IS NULL
GROUP BY run_id, sample_id, resolution
