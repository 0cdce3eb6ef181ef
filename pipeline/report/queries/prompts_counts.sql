-- How many prompts are there, of how much, and how long did they take?
SELECT
    (SELECT count(*) FROM prompts) AS kept,
    (SELECT count(*) FROM rejections) AS rejected,
    (SELECT count(DISTINCT image_id) FROM prompts) AS images,
    (SELECT sum(num_objects) FROM prompts) AS objects,
    (SELECT count(*) FROM prompts WHERE flat_saliency) AS flat,
    (SELECT string_agg(DISTINCT source, ', ') FROM prompts) AS sources,
    (SELECT string_agg(DISTINCT role, ', ') FROM prompts) AS roles,
    (SELECT count(*) FROM shards) AS parts,
    (SELECT sum(seconds) FROM shards) AS seconds,
    (SELECT sum(bytes) FROM shards) AS bytes;
