-- How much is there, and how long did it take?
SELECT
    (SELECT count(*) FROM trajectories) AS kept,
    (SELECT count(*) FROM rejections) AS rejected,
    (SELECT count(DISTINCT sample_id) FROM trajectories) AS questions,
    (SELECT count(DISTINCT image_id) FROM trajectories) AS images,
    (SELECT string_agg(DISTINCT source, ', ') FROM trajectories) AS sources,
    (SELECT string_agg(DISTINCT policy, ', ') FROM trajectories) AS policies,
    (SELECT count(*) FROM shards) AS parts,
    (SELECT sum(seconds) FROM shards) AS seconds,
    (SELECT sum(bytes) FROM shards) AS bytes,
    (SELECT count(DISTINCT worker) FROM shards) AS workers;
