-- Does what is kept differ from what was tried: by budget, kind, picture size, looks?
WITH facets AS (
    SELECT
        run_id,
        coalesce(stage, 'kept') AS fate,
        coalesce(objections, 0) > 0 AS retried,
        unnest(
            [
                {'facet': 'resolution', 'class': lpad(resolution::VARCHAR, 4, ' ')},
                {'facet': 'kind', 'class': kind},
                {'facet': 'task', 'class': task},
                {'facet': 'megapixels', 'class': CASE
                    WHEN width::BIGINT * height < 1000000 THEN '< 1'
                    WHEN width::BIGINT * height < 4000000 THEN '1 to 4'
                    WHEN width::BIGINT * height < 16000000 THEN '4 to 16'
                    ELSE '>= 16' END},
                {'facet': 'looks', 'class': CASE
                    WHEN num_zooms >= 3 THEN '3+' ELSE num_zooms::VARCHAR END}
            ],
            recursive := true
        )
    FROM tries
    WHERE same_view_as IS NULL
),
counted AS (
    SELECT
        run_id,
        facet,
        class,
        count(*) AS tried,
        count(*) FILTER (fate = 'kept') AS kept,
        count(*) FILTER (fate = 'balance') AS set_aside,
        count(*) FILTER (fate NOT IN ('kept', 'balance')) AS rejected,
        count(*) FILTER (retried) AS retried
    FROM facets
    GROUP BY run_id, facet, class
)
SELECT
    *,
    kept / sum(kept) OVER of_facet AS share_kept,
    rejected / sum(rejected) OVER of_facet AS share_rejected,
    retried / sum(retried) OVER of_facet AS share_retried,
    -- How much larger a part of what is kept than of what was tried.
    kept / sum(kept) OVER of_facet - tried / sum(tried) OVER of_facet AS shift
FROM counted
WINDOW of_facet AS (PARTITION BY run_id, facet)
