-- How many trajectories are there, of what, how hard, from where, and what did they take?
WITH facets AS (
    SELECT unnest(
        [
            {'name': 'zooms', 'class': num_zooms::VARCHAR},
            {'name': 'resolutions', 'class': resolution::VARCHAR},
            {'name': 'kinds', 'class': kind},
            {'name': 'tasks', 'class': task},
            {'name': 'ends', 'class': finish},
            {'name': 'verified', 'class': CASE WHEN verified THEN 'yes' WHEN NOT verified THEN 'no' END},
            {'name': 'necessary', 'class': CASE WHEN necessary THEN 'yes' WHEN NOT necessary THEN 'no' END},
            {'name': 'sufficient', 'class': CASE WHEN sufficient THEN 'yes' WHEN NOT sufficient THEN 'no' END},
            {'name': 'megapixels', 'class': CASE
                WHEN width::BIGINT * height < 1000000 THEN 'below 1'
                WHEN width::BIGINT * height < 4000000 THEN '1 to 4'
                WHEN width::BIGINT * height < 16000000 THEN '4 to 16'
                ELSE '16 and more' END},
            {'name': 'fewest_looks', 'class': fewest_looks::VARCHAR},
            {'name': 'solved', 'class': CASE
                WHEN tries IS NULL OR tries_right IS NULL THEN NULL
                WHEN tries_right = 0 THEN 'never'
                WHEN tries_right < tries THEN 'sometimes'
                ELSE 'always' END},
            {'name': 'sources', 'class': source},
            {'name': 'licences', 'class': nullif(license, '')},
            {'name': 'policies', 'class': policy},
            {'name': 'prompt_digests', 'class': nullif(prompt_sha256, '')}
        ],
        recursive := true
    )
    FROM trajectories
),
whole AS (
    SELECT
        count(*) AS "rows",
        count(DISTINCT sample_id) AS questions,
        count(DISTINCT coalesce(image_sha256, image_id)) AS pictures,
        count(*) FILTER (same_view_as IS NOT NULL) AS same_view,
        coalesce(sum(visual_tokens), 0)::BIGINT AS visual_tokens,
        coalesce(sum(tokens_in), 0)::BIGINT AS tokens_in,
        coalesce(sum(tokens_out), 0)::BIGINT AS tokens_out
    FROM trajectories
)
SELECT name, NULL AS class, value FROM (UNPIVOT whole ON COLUMNS(*) INTO NAME name VALUE value)
UNION ALL
SELECT name, coalesce(class, 'not known'), count(*) FROM facets GROUP BY name, class
