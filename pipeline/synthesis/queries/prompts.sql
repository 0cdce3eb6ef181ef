-- How many visual prompts are there, of how much, and from where?
WITH facets AS (
    SELECT unnest(
        [
            {'name': 'tasks', 'class': task},
            {'name': 'roles', 'class': role},
            {'name': 'levels', 'class': len(level_sizes)::VARCHAR},
            {'name': 'objects_each', 'class': CASE
                WHEN num_objects >= 8 THEN '8 and more' ELSE num_objects::VARCHAR END},
            {'name': 'outlined_by', 'class': CASE
                WHEN segmenter IS NULL THEN 'source' ELSE 'segmenter' END},
            {'name': 'sources', 'class': source},
            {'name': 'licences', 'class': nullif(license, '')},
            {'name': 'saliency_nets', 'class': net}
        ],
        recursive := true
    )
    FROM prompts
),
whole AS (
    SELECT
        count(*) AS "rows",
        count(DISTINCT coalesce(image_sha256, image_id)) AS pictures,
        coalesce(sum(num_objects), 0)::BIGINT AS objects,
        count(*) FILTER (flat_saliency) AS flat
    FROM prompts
)
SELECT name, NULL AS class, value FROM (UNPIVOT whole ON COLUMNS(*) INTO NAME name VALUE value)
UNION ALL
SELECT name, coalesce(class, 'not known'), count(*) FROM facets GROUP BY name, class
